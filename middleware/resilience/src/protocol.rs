//! Protocol of a hop: HTTP or gRPC.

/// Protocol of the responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// JSON over HTTP; rejections become problem documents.
    Http,
    /// gRPC; rejections become statuses in trailers.
    Grpc,
}

impl Protocol {
    /// Label value of the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}
