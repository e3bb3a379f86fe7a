#!/usr/bin/env bash
# Generates the stubs from protos/ and compiles them with the client: build.sh [FOLDER]; default is build/ beside this file.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
protos=$(cd "$here/../../../protos" && pwd)
out=${1:-$here/build}
. "$here/classpath.sh"

rm -rf "$out"
mkdir -p "$out/stubs" "$out/classes"
protoc -I"$protos" --java_out="$out/stubs" --grpc-java_out="$out/stubs" \
  --plugin=protoc-gen-grpc-java="$(command -v grpc_java_plugin)" "$protos"/palate/v1/*.proto
find "$out/stubs" -name '*.java' > "$out/sources"
javac -proc:none -nowarn -cp "$classpath" -d "$out/classes" @"$out/sources" "$here/Client.java"
