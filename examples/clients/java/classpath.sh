# The jars of Debian's gRPC for Java, as $classpath; JARS names another folder that holds them under these names.
jars=${JARS:-/usr/share/java}
classpath=
for jar in grpc-api grpc-core grpc-context grpc-netty grpc-protobuf grpc-protobuf-lite grpc-stub protobuf guava \
  perfmark-api netty-buffer netty-codec netty-codec-http netty-codec-http2 netty-codec-socks netty-common netty-handler \
  netty-handler-proxy netty-resolver netty-transport netty-transport-native-unix-common geronimo-annotation-1.3-spec; do
  if [ ! -f "$jars/$jar.jar" ]; then
    echo "$jars/$jar.jar is missing; see README.md for the packages" >&2
    exit 1
  fi
  classpath=$classpath${classpath:+:}$jars/$jar.jar
done
