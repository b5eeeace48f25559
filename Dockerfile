# One image for API and worker; docker-compose.yml says which of the two runs.
FROM python:3.12-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/director
COPY requirements ./requirements
RUN pip install --no-cache-dir --require-hashes -r requirements/lock.txt
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .
# What runs commands inside sandboxes is made here, so that the image needs no compiler.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && python -c "from director.sandbox import tools; tools.install_tools(tools.READY)" \
    && apt-get purge -y --auto-remove gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
