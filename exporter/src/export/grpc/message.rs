//! Bytes as the one message of a call: in, as they are; out, length-prefixed (gRPC over HTTP2, "Requests"), and not copied.
//! A codec of tonic's copies each message into a fresh buffer behind its five bytes of head, which for a megabyte costs as
//! much as to send it.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame};

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    head: Option<Bytes>,
    bytes: Option<Bytes>,
}

// === impl Message

impl Message {
    /// Of these bytes, which are compressed or not; `None` where they are too many for gRPC, 4 GiB.
    pub fn new(bytes: Bytes, is_compressed: bool) -> Option<Self> {
        let mut head = [u8::from(is_compressed), 0, 0, 0, 0];
        let (_, length) = head.split_at_mut(1);
        length.copy_from_slice(&u32::try_from(bytes.len()).ok()?.to_be_bytes());
        Some(Self { head: Some(Bytes::copy_from_slice(&head)), bytes: Some(bytes) })
    }
}

impl Body for Message {
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_message_is_its_length_and_its_bytes() {
        let bytes = Bytes::from(vec![7; 300]);
        let message = Message::new(bytes.clone(), false).expect("less than 4 GiB");
        assert!(!message.is_end_stream());
        let sent = message.collect().await.expect("it can't fail").to_bytes();
        assert_eq!((&sent[..5], &sent[5..]), (&[0, 0, 0, 1, 44][..], &bytes[..]));
    }
}
