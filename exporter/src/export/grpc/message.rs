//! A batch's bytes as the one message of a request: in, as they are; out, length-prefixed (gRPC over HTTP2, "Requests"),
//! and not copied. A codec of tonic's copies each message into a fresh buffer behind its five bytes of head, which for a
//! megabyte costs as much as to send it.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tonic::{codegen::Service, transport::Channel};

/// A message that is not compressed.
#[derive(Debug)]
pub(super) struct Uncompressed {
    head: Option<Bytes>,
    bytes: Option<Bytes>,
}

/// The channel, sending this message in place of what it is called with.
#[derive(Debug)]
pub(super) struct Sending {
    pub channel: Channel,
    /// `None`: what it is called with.
    pub message: Option<Uncompressed>,
}

// === impl Uncompressed

impl Uncompressed {
    /// Of these bytes; `None` where they are too many for gRPC, 4 GiB.
    pub fn new(bytes: Bytes) -> Option<Self> {
        let mut head = [0; 5];
        let (_, length) = head.split_at_mut(1);
        length.copy_from_slice(&u32::try_from(bytes.len()).ok()?.to_be_bytes());
        Some(Self { head: Some(Bytes::copy_from_slice(&head)), bytes: Some(bytes) })
    }
}

impl Body for Uncompressed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.head.take().or_else(|| self.bytes.take());
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }
}

// === impl Sending

impl Service<http::Request<tonic::body::Body>> for Sending {
    type Response = <Channel as Service<http::Request<tonic::body::Body>>>::Response;
    type Error = <Channel as Service<http::Request<tonic::body::Body>>>::Error;
    type Future = <Channel as Service<http::Request<tonic::body::Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let request = match self.message.take() {
            Some(message) => request.map(|_| tonic::body::Body::new(message)),
            None => request,
        };
        self.channel.call(request)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_message_is_its_length_and_its_bytes() {
        let bytes = Bytes::from(vec![7; 300]);
        let message = Uncompressed::new(bytes.clone()).expect("less than 4 GiB");
        assert!(!message.is_end_stream());
        let sent = message.collect().await.expect("it can't fail").to_bytes();
        assert_eq!((&sent[..5], &sent[5..]), (&[0, 0, 0, 1, 44][..], &bytes[..]));
    }
}
