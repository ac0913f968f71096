//! How a collector may be spoken to; gRPC is feature `otlp-grpc`.

pub(super) const PROTOCOLS: [(&str, bool); 1] = [("http/protobuf", false)];
