"""The parts that routes work with, as names for their signatures.

All are coroutines: FastAPI takes any other dependency to a thread and back, for each request."""

import re
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Header, Query, Request
from pydantic import BeforeValidator

from director.api.gateway import Gateway
from director.api.hub import Hub
from director.api.transfers import Transfers
from director.blobs.store import Blobs
from director.domain.lifetimes import Terms
from director.domain.pages import DEFAULT_LIMIT, MAX_LIMIT, Order, PageQuery
from director.store.engine import Store


async def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


async def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


async def _blobs(request: Request) -> Blobs:
    blobs: Blobs = request.app.state.blobs
    return blobs


def _output_kept(request: Request) -> timedelta | None:
    kept: timedelta | None = request.app.state.output_kept
    return kept


async def _transfers(request: Request) -> Transfers:
    transfers: Transfers = request.app.state.transfers
    return transfers


async def _terms(request: Request) -> Terms:
    terms: Terms = request.app.state.terms
    return terms


StoreDep = Annotated[Store, Depends(_store)]
GatewayDep = Annotated[Gateway, Depends(_gateway)]
HubDep = Annotated[Hub, Depends(_hub)]
TransfersDep = Annotated[Transfers, Depends(_transfers)]
BlobsDep = Annotated[Blobs, Depends(_blobs)]
TermsDep = Annotated[Terms, Depends(_terms)]
OutputKeptDep = Annotated[timedelta | None, Depends(_output_kept)]
"""How long outputs are kept after the end of their run; None: for ever."""


def _digits(value: object) -> object:
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise ValueError("must be an integer")
    return value


def _yes_or_no(value: object) -> object:
    """`?follow` and `?follow=true` mean the same."""
    if isinstance(value, str) and value not in _FLAGS:
        raise ValueError("must be true or false")
    return _FLAGS[value] if isinstance(value, str) else value


_INTEGER = re.compile(r"-?[0-9]{1,15}")
_FLAGS = {"": True, "true": True, "1": True, "false": False, "0": False}

QueryInt = Annotated[int, BeforeValidator(_digits)]
"""An integer of the query string, written as one: not `5.0`, `1_0` or `+5`."""

QueryFlag = Annotated[bool, BeforeValidator(_yes_or_no)]

MatchDep = Annotated[str | None, Header(alias="If-Match", max_length=1000)]
WaitDep = Annotated[QueryInt, Query(ge=0, le=60, description="Seconds to wait for the end.")]


async def _page(
    limit: Annotated[QueryInt, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    offset: Annotated[QueryInt, Query(ge=0, le=1_000_000_000)] = 0,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> PageQuery:
    return PageQuery(limit=limit, offset=offset, cursor=cursor)


PageDep = Annotated[PageQuery, Depends(_page)]


async def _ordered(
    query: PageDep,
    order: Annotated[Order, Query(description="`asc`: oldest first.")] = Order.DESC,
) -> PageQuery:
    return query.model_copy(update={"order": order})


OrderedPageDep = Annotated[PageQuery, Depends(_ordered)]
"""For a list that can be read from its begin as well."""
