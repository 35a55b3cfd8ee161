#!/bin/sh
# Make .env with fresh secrets from .env.example, for no one else to read. An .env that is there stays what it is.
set -eu
cd "$(dirname "$0")"
if [ -e .env ]; then
    echo ".env is there already" >&2
    exit 1
fi
umask 077
while read -r line; do
    case $line in *=) line=$line$(openssl rand -hex 24) ;; esac
    echo "$line"
done < .env.example > .env.new
mv .env.new .env
