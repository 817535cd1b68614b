//! A TCP proxy between a client and a server of this machine, whose connections a test cuts, stalls and refuses.

use std::io;
use std::net::{Ipv4Addr, TcpListener as PlainListener};

use futures::future::try_join;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::within;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Flowing,
    Stalled,
    Refusing,
}

/// A proxy on a free port of 127.0.0.1. Dropped, it closes its connections and stops listening.
pub struct Proxy {
    port: u16,
    to: u16,
    mode: watch::Sender<Mode>,
    cuts: mpsc::UnboundedSender<oneshot::Sender<()>>,
    /// Aborted when dropped, and with it every connection.
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy to a port of 127.0.0.1, where nobody needs to listen yet.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let listener = listener.into_std().expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let (mode, _) = watch::channel(Mode::Flowing);
        let (cuts, cut) = mpsc::unbounded_channel();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, to, mode.clone(), cut));
        Self { port, to, mode, cuts, _accepting: accepting }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A URL of the server, changed to lead through this proxy.
    ///
    /// # Panics
    /// When it does not have the server's address in it.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        let server = format!("127.0.0.1:{}", self.to);
        assert!(url.contains(&server), "{url} does not lead to {server}");
        url.replacen(&server, &format!("127.0.0.1:{}", self.port), 1)
    }

    /// Resets every present connection, at both ends, and answers when that is done. New ones are welcome.
    ///
    /// # Panics
    /// When it cannot be done.
    pub async fn cut(&self) {
        let (done, all) = oneshot::channel();
        self.cuts.send(done).expect("the proxy lives");
        within("the cut of the proxy's connections", all).await.expect("the proxy lives");
    }

    /// Lets no more bytes through in either direction: connections stay open, new ones are accepted, and nobody hears
    /// anything, not even that the other end has gone.
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stalled);
    }

    /// Resets new connections at once; present ones go on.
    pub fn refuse(&self) {
        self.mode.send_replace(Mode::Refusing);
    }

    /// Ends [`Proxy::stall`] or [`Proxy::refuse`]; what was sent meanwhile arrives.
    pub fn resume(&self) {
        self.mode.send_replace(Mode::Flowing);
    }
}

async fn accept(
    plain: PlainListener,
    to: u16,
    mode: watch::Sender<Mode>,
    mut cuts: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
) {
    let listener = plain.try_clone().and_then(TcpListener::from_std).expect("a listener");
    let (cut, _) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(done) = cuts.recv() => {
                // Connections that nobody has accepted yet are present for those who made them.
                while let Ok((client, _)) = plain.accept() {
                    let client = client.set_nonblocking(true).and_then(|()| TcpStream::from_std(client));
                    reset(client.ok());
                }
                cut.send_replace(());
                while connections.join_next().await.is_some() {}
                // The test may have stopped waiting.
                let _ = done.send(());
            }
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let client = accepted.ok().map(|(client, _)| client);
                match client {
                    Some(client) if *mode.borrow() != Mode::Refusing => {
                        connections.spawn(carry(client, to, mode.subscribe(), cut.subscribe()));
                    }
                    refused => reset(refused),
                }
            }
        }
    }
}

/// Closes a connection with a reset.
fn reset(stream: Option<TcpStream>) {
    if let Some(stream) = stream {
        // It may be closed already.
        let _ = stream.set_zero_linger();
    }
}

/// One connection, until both ends are done, one fails, or a cut.
async fn carry(mut client: TcpStream, to: u16, mode: watch::Receiver<Mode>, mut cut: watch::Receiver<()>) {
    let mut server = None;
    let clean = tokio::select! {
        biased;
        _ = cut.changed() => false,
        moved = both_ways(&mut client, &mut server, to, mode) => moved.is_ok(),
    };
    if !clean {
        reset(Some(client));
        reset(server);
    }
}

async fn both_ways(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    to: u16,
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    flowing(&mut mode).await?;
    let server = server.insert(TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await?);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = one_way(from_client, to_server, mode.clone());
    try_join(up, one_way(from_server, to_client, mode)).await.map(|_| ())
}

async fn one_way(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut mode: watch::Receiver<Mode>) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        flowing(&mut mode).await?;
        let read = tokio::select! {
            biased;
            changed = mode.changed() => { changed.map_err(io::Error::other)?; continue }
            read = from.read(&mut buffer) => read?,
        };
        // What was read may have been sent after the stall.
        flowing(&mut mode).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            flowing(&mut mode).await?;
            tokio::select! {
                biased;
                changed = mode.changed() => changed.map_err(io::Error::other)?,
                written = to.write(rest) => rest = &rest[written?..],
            }
        }
    }
}

/// Waits until bytes may move; an error when the proxy is gone.
async fn flowing(mode: &mut watch::Receiver<Mode>) -> io::Result<()> {
    mode.wait_for(|mode| *mode != Mode::Stalled).await.map(|_| ()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::Proxy;

    /// A connection through a proxy, seen from both ends.
    async fn pair(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("the proxy");
        (client, listener.accept().await.expect("the proxy comes").0)
    }

    /// Sends a byte and answers whether it arrives.
    async fn passes(from: &mut TcpStream, to: &mut TcpStream, patience: Duration) -> bool {
        from.write_all(b"x").await.expect("sent");
        tokio::time::timeout(patience, to.read_exact(&mut [0])).await.is_ok()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_flow_stall_and_flow_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = Proxy::start(listener.local_addr().expect("an address").port()).await;
        let (mut client, mut server) = pair(&proxy, &listener).await;
        assert!(passes(&mut client, &mut server, crate::PATIENCE).await);
        assert!(passes(&mut server, &mut client, crate::PATIENCE).await);
        proxy.stall();
        assert!(!passes(&mut client, &mut server, Duration::from_millis(50)).await);
        assert!(!passes(&mut server, &mut client, Duration::from_millis(50)).await);
        let mut late = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("accepted");
        late.write_all(b"late").await.expect("sent");
        let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(nobody.is_err(), "a new connection must not get through");
        proxy.resume();
        let (mut late, mut all) = (listener.accept().await.expect("the late one").0, [0; 4]);
        late.read_exact(&mut all).await.expect("what was sent during the stall");
        assert_eq!(&all, b"late");
        server.read_exact(&mut [0]).await.expect("what was sent during the stall");
        // An end passes, and the other direction goes on.
        client.shutdown().await.expect("half closed");
        assert_eq!(server.read(&mut all).await.expect("an end"), 0);
        assert!(passes(&mut server, &mut client, crate::PATIENCE).await);
    }

    #[tokio::test]
    async fn a_cut_resets_both_ends_and_the_next_connection_works() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = Proxy::start(listener.local_addr().expect("an address").port()).await;
        for stalled in [false, true] {
            let (mut client, mut server) = pair(&proxy, &listener).await;
            if stalled {
                proxy.stall();
            }
            // Nobody has accepted this one yet.
            let mut fresh = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("the proxy");
            proxy.cut().await;
            for end in [&mut client, &mut server, &mut fresh] {
                assert_eq!(end.read(&mut [0]).await.expect_err("reset").kind(), ErrorKind::ConnectionReset);
            }
            proxy.resume();
        }
        let (mut client, mut server) = pair(&proxy, &listener).await;
        proxy.refuse();
        let mut refused = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("the proxy");
        assert_eq!(refused.read(&mut [0]).await.expect_err("reset").kind(), ErrorKind::ConnectionReset);
        assert!(passes(&mut client, &mut server, crate::PATIENCE).await);
        drop(proxy);
        assert!(client.read(&mut [0]).await.is_ok_and(|read| read == 0) || client.read(&mut [0]).await.is_err());
    }
}
