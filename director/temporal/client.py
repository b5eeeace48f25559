"""The connection to Temporal, and the namespace as Director needs it."""

import asyncio
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from director.domain.names import SEARCH_ATTRIBUTES

RETENTION = timedelta(days=30)


class _SharedConverter(PydanticPayloadConverter):
    """One for all: the SDK makes a converter twice for each workflow task and once for each run,
    and each would find out anew how to read every type."""

    _made: "_SharedConverter | None" = None

    def __new__(cls) -> "_SharedConverter":
        if cls._made is None:
            cls._made = super().__new__(cls)
            PydanticPayloadConverter.__init__(cls._made)
        return cls._made

    def __init__(self) -> None:
        """Nothing is left to do."""


DATA_CONVERTER = DataConverter(payload_converter_class=_SharedConverter)
"""Shapes as JSON."""


async def connect(
    address: str, namespace: str, *, tls: bool = False, api_key: str | None = None, lazy: bool
) -> Client:
    """A client for a namespace; a lazy one connects at its first call."""
    return await Client.connect(
        address,
        namespace=namespace,
        api_key=api_key,
        tls=tls or None,
        data_converter=DATA_CONVERTER,
        lazy=lazy,
    )


async def prepare_namespace(client: Client) -> None:
    """Make the namespace with 30 days of retention and our search attributes, if missing.

    The dev server's own default is one day, after which a run would be unknown to Temporal."""
    try:
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(
                namespace=client.namespace,
                description="Director's runs",
                workflow_execution_retention_period=Duration(
                    seconds=int(RETENTION.total_seconds())
                ),
            )
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise
    await _until_usable(client)
    await _add_search_attributes(client)


async def _until_usable(client: Client) -> None:
    """A namespace is known to all parts of the server only a moment after it was made."""
    for _ in range(100):
        try:
            request = DescribeNamespaceRequest(namespace=client.namespace)
            await client.workflow_service.describe_namespace(request)
            await client.count_workflows("")
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            await asyncio.sleep(0.1)
        else:
            return
    raise TimeoutError(f"Temporal's namespace {client.namespace} did not become usable in 10 s")


async def _add_search_attributes(client: Client) -> None:
    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    try:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace=client.namespace,
                search_attributes=dict.fromkeys(SEARCH_ATTRIBUTES, keyword),
            )
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise
