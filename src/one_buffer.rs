//! A connection that takes one buffer at a time.
//!
//! Over a transport that takes several, h2 sends each frame of 256 bytes and more by itself, so that it need not copy it: a
//! call to the kernel for each event of each watch, and a second one for each answer that is followed by trailers. Over one
//! that does not, frames up to 1 KiB are put into one buffer and go out together; only a larger one costs a call more.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

#[derive(Debug)]
pub struct OneBuffer<T>(pub T);

impl<T: AsyncRead + Unpin> AsyncRead for OneBuffer<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

/// Whether it takes several buffers is said by the default: it does not.
impl<T: AsyncWrite + Unpin> AsyncWrite for OneBuffer<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<T: Connected> Connected for OneBuffer<T> {
    type ConnectInfo = T::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.0.connect_info()
    }
}
