"""Uploads into a stage of which little is in memory, however large the files are.

The connector alone takes files whole up to a size that the service names, and to Google's cloud files of any size; of
either as many at once as PARALLEL says.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from snowflake.connector.cursor import SnowflakeCursor
from snowflake.connector.file_transfer_agent import SnowflakeFileTransferAgent
from snowflake.connector.gcs_storage_client import SnowflakeGCSRestClient

PIECE = 8 * 2**20
"""What the connector cuts files into, where the storage takes pieces."""
MOST_PIECES = 12
"""At once: as much memory as there may be for them."""
BLOCK = 2**20


class SparingCursor(SnowflakeCursor):
    """Uploads in pieces, or block by block where the storage takes none."""

    def _create_file_transfer_agent(
        self, command: str, ret: dict[str, Any], /, **more: Any
    ) -> SnowflakeFileTransferAgent:
        ret["data"]["parallel"] = min(ret["data"]["parallel"], MOST_PIECES)
        agent = super()._create_file_transfer_agent(command, ret, **more | {"multipart_threshold": PIECE})
        made = agent._create_file_transfer_client  # noqa: SLF001 - the connector has no other way in

        def sparing(meta: Any) -> Any:
            client = made(meta)
            if isinstance(client, SnowflakeGCSRestClient):
                # Its own would read the file into memory, and send that.
                client.upload_chunk = partial(_upload, client)  # type: ignore[method-assign]
            return client

        agent._create_file_transfer_client = sparing  # type: ignore[method-assign]  # noqa: SLF001 - as above
        return agent


def _upload(client: SnowflakeGCSRestClient, chunk_id: int) -> None:
    client._upload_chunk(chunk_id, Streamed(Path(client.data_file)))  # type: ignore[arg-type]  # noqa: SLF001 - as above


@dataclass(frozen=True, slots=True)
class Streamed:
    """A file as the body of a request: read as it is sent, and again where it is sent again."""

    path: Path

    def __len__(self) -> int:
        return self.path.stat().st_size

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block
