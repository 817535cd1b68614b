//! What a guest writes to its standard output and error. The end of it is kept, and writing never fails: a tool that
//! prints much is no broken tool.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

/// Bytes that are kept, and that a guest may write at once.
const TAIL_MAX_BYTES: usize = 64 * 1024;

/// The last bytes of all that was written. A clone is another way to the same.
#[derive(Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn kept(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn contents(&self) -> Vec<u8> {
        self.kept().iter().copied().collect()
    }
}

impl OutputStream for Tail {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let last = &bytes[bytes.len().saturating_sub(TAIL_MAX_BYTES)..];
        let mut kept = self.kept();
        let beyond = (kept.len() + last.len()).saturating_sub(TAIL_MAX_BYTES);
        kept.drain(..beyond);
        kept.extend(last);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(TAIL_MAX_BYTES)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Tail {
    async fn ready(&mut self) {}
}

impl IsTerminal for Tail {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Tail {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Only WASI 0.3 asks for this, which is not offered.
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_whatever_came_before() {
        let tail = Tail::default();
        let mut stream = tail.clone();
        let kept = |start: &[u8], end: &[u8]| {
            let contents = tail.contents();
            contents.starts_with(start) && contents.ends_with(end)
        };
        stream.write(Bytes::from_static(b"first")).unwrap();
        assert_eq!(tail.contents(), b"first");
        stream.write(Bytes::from(vec![b'x'; TAIL_MAX_BYTES - 2])).unwrap();
        assert!(kept(b"stxx", b"xx"));
        stream.write(Bytes::from(vec![b'y'; 3 * TAIL_MAX_BYTES])).unwrap();
        stream.write(Bytes::from_static(b"last")).unwrap();
        assert!(kept(b"yy", b"yylast"));
        assert_eq!(tail.contents().len(), TAIL_MAX_BYTES);
    }
}
