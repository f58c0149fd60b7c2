//! Which sockets does a listener have? One for each worker, all on the same address.

use std::io;
use std::net::SocketAddr;

/// Connections that wait to be accepted, per worker.
const BACKLOG: i32 = 1024;

/// Binds one socket per worker to the same address; the kernel spreads connections over them.
pub(super) fn bind(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    // Sharing a port between workers also lets another process share it unnoticed. This socket does not share, so it
    // finds out whether the port is taken.
    let probe = socket(address, false)?;
    let actual = probe.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    drop(probe);
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = socket(actual, true)?;
        socket.listen(BACKLOG)?;
        sockets.push(socket.into());
    }
    Ok((actual, sockets))
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::bind;

    #[test]
    fn a_port_that_is_taken_is_an_error_even_though_workers_share_ports() {
        let (address, sockets) = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert_eq!(sockets.len(), 2);
        assert!(bind(address, 1).is_err());
        drop(sockets);
        assert!(bind(address, 1).is_ok());
    }
}
