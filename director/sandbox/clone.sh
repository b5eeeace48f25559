# Clones REF of the repository at URL into the workspace and prints the commit. EXACT: whether REF is
# a commit or a whole ref. TRUST: whether certificates come on stdin, which are trusted beside those
# that the image has.
set -e
cd /workspace
command -v git >/dev/null || exit 127

if [ -n "$TRUST" ]; then
    export GIT_SSL_CAINFO=/tmp/trusted.pem
    for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
        [ ! -r "$bundle" ] || cat "$bundle"
    done >"$GIT_SSL_CAINFO"
    cat >>"$GIT_SSL_CAINFO"
fi

# Nothing but what the repository itself holds: no other protocol, host, helper, hook or filter.
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=
export GIT_LFS_SKIP_SMUDGE=1 GIT_HTTP_LOW_SPEED_LIMIT=1 GIT_HTTP_LOW_SPEED_TIME=60
export NO_PROXY='*' no_proxy='*' LC_ALL=C
safe() {
    git -c protocol.allow=never -c protocol.https.allow=always -c http.followRedirects=false \
        -c core.hooksPath=/dev/null -c credential.helper= -c submodule.recurse=false "$@"
}

if [ -n "$EXACT" ]; then
    safe -c init.defaultBranch=main init --quiet --template= .
    safe remote add origin "$URL"
    safe fetch --quiet --depth 1 --no-tags --no-recurse-submodules origin "$REF"
    safe checkout --quiet --detach FETCH_HEAD
else
    safe clone --quiet --depth 1 --no-recurse-submodules --template= ${REF:+--branch "$REF"} \
        -- "$URL" .
fi
safe rev-parse --verify HEAD
