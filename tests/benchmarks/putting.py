"""Puts all files of a folder into a bucket of S3 by the vendor's client, so many side by side; says the seconds.

python -m tests.benchmarks.putting CONNECTION FOLDER SIDE_BY_SIDE
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config


def main(said: str, folder: str, side_by_side: str) -> None:
    connection = json.loads(said)
    client: Any = boto3.client(
        "s3",
        endpoint_url=connection["endpoint_url"],
        aws_access_key_id=connection["access_key"],
        aws_secret_access_key=connection["secret_key"],
        region_name=connection["region"],
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=int(side_by_side)),
    )

    def put(path: Path) -> None:
        client.put_object(Bucket=connection["bucket"], Key=f"{side_by_side}/{path.name}", Body=path.read_bytes())

    files = sorted(Path(folder).iterdir())
    client.head_bucket(Bucket=connection["bucket"])
    began = time.perf_counter()
    with ThreadPoolExecutor(int(side_by_side)) as pool:
        assert len(list(pool.map(put, files))) == len(files)
    print(json.dumps([time.perf_counter() - began]))


if __name__ == "__main__":
    main(*sys.argv[1:])
