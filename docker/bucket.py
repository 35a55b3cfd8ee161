"""Make the bucket of the artifact store, as soon as the store answers; give up after a minute."""

import os
import sys
import time

import boto3
from botocore.exceptions import EndpointConnectionError

bucket = sys.argv[1]
store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
deadline = time.monotonic() + 60
while True:
    try:
        existing = {found["Name"] for found in store.list_buckets()["Buckets"]}
        break
    except EndpointConnectionError as error:
        if time.monotonic() > deadline:
            sys.exit(str(error))
        time.sleep(1)
if bucket not in existing:
    store.create_bucket(Bucket=bucket)
