//! How a collector may be spoken to, and whether that is gRPC.

pub(super) const PROTOCOLS: [(&str, bool); 2] = [("http/protobuf", false), ("grpc", true)];
