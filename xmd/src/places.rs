//! The sockets, and under which addresses others reach them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use tokio::net::TcpListener;
use xm_core::net::udp;
use xmmep::client::ServerAddress;
use xmmep::session::ServerPublicKey;

use crate::config::Config;
use crate::server::StartError;
use crate::threads;

/// The sockets of a process, bound before anything serves, so that a port in use is known before a database is opened.
pub(crate) struct Sockets {
    /// The Router's.
    pub(crate) router: UdpSocket,
    pub(crate) router_address: SocketAddr,
    /// The Presence's, one per lane.
    pub(crate) presence: Vec<UdpSocket>,
    pub(crate) presence_address: SocketAddr,
    /// The pages'.
    pub(crate) web: TcpListener,
    pub(crate) web_address: SocketAddr,
}

impl Sockets {
    pub(crate) async fn bind(config: &Config) -> Result<Self, StartError> {
        let lanes = match config.presence.lanes {
            0 => threads::cores().min(64),
            lanes => lanes,
        };
        let (mut router, router_address) = bind_udp("router.listen", config.router.listen, 1)?;
        let router = router.remove(0);
        let (presence, presence_address) = bind_udp("presence.listen", config.presence.listen, lanes)?;
        let listen = config.web.listen;
        let web = TcpListener::bind(listen).await.map_err(|why| refused("web.listen", listen, &why))?;
        let web_address = web.local_addr().map_err(|why| refused("web.listen", listen, &why))?;
        Ok(Self { router, router_address, presence, presence_address, web, web_address })
    }
}

fn bind_udp(key: &'static str, address: SocketAddr, lanes: usize) -> Result<(Vec<UdpSocket>, SocketAddr), StartError> {
    let bind = || {
        // Lanes share their port, and the kernel would let another process of this user share it, too: first take it
        // alone, which fails if anybody has it.
        drop(UdpSocket::bind(address)?);
        let sockets = udp::bind_lanes(address, lanes)?;
        let bound = sockets.first().ok_or(std::io::ErrorKind::InvalidInput)?.local_addr()?;
        Ok((sockets, bound))
    };
    bind().map_err(|why| refused(key, address, &why))
}

fn refused(key: &'static str, address: SocketAddr, why: &std::io::Error) -> StartError {
    let why = match why.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another program listens there, perhaps another xmd; stop it, or choose another port (0 takes a free one)"
                .into()
        }
        std::io::ErrorKind::AddrNotAvailable => "this machine has no such address; choose one it has".into(),
        std::io::ErrorKind::PermissionDenied => {
            "xmd may not listen there; choose a port from 1024 on, or give it the right to".into()
        }
        _ => why.to_string(),
    };
    StartError::Listen { key, address, why }
}

/// Where everything is, as others see it.
#[derive(Clone, Debug)]
pub struct Places {
    /// What clients are given.
    pub client: ServerAddress,
    /// Where clients reach the Presence, as the Router tells them.
    pub presence: Vec<SocketAddr>,
    /// The registration page, without a slash at the end.
    pub web: String,
    /// The directory of `.eml` files; `None` if mails go to relays.
    pub mails: Option<PathBuf>,
    /// The data directory.
    pub data: PathBuf,
    /// Whether nothing listens beyond this machine.
    pub loopback_only: bool,
}

impl Places {
    pub(crate) async fn find(
        config: &Config,
        sockets: &Sockets,
        router_key: ServerPublicKey,
        (data, mails): (PathBuf, Option<PathBuf>),
    ) -> Result<Self, StartError> {
        let (router, presence) = (sockets.router_address, sockets.presence_address);
        let bad = |why: String| StartError::PublicAddress { name: config.public_address.clone(), why };
        // Who listens on loopback is reached there, whatever the rest of the world is told.
        let router_host =
            if router.ip().is_loopback() { router.ip().to_string() } else { config.public_address.clone() };
        let client =
            ServerAddress::new(&router_host, router.port(), router_key.0).map_err(|why| bad(why.to_string()))?;
        let presence = if presence.ip().is_loopback() {
            vec![presence]
        } else {
            lookup(&config.public_address, presence).await.map_err(bad)?
        };
        let web = match config.web.public_url.as_str() {
            "" => format!("http://{}", sockets.web_address),
            url => url.to_owned(),
        };
        let loopback_only =
            [router, sockets.presence_address, sockets.web_address].iter().all(|address| address.ip().is_loopback());
        Ok(Self { client, presence, web, mails, data, loopback_only })
    }
}

/// The addresses of `name` that a socket listening on `listen` can be reached at, four at most.
async fn lookup(name: &str, listen: SocketAddr) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host((name, listen.port())).await;
    let found = found.map_err(|why| format!("it cannot be looked up ({why}); give a name that can, or an address"))?;
    let family = |address: &SocketAddr| match listen.ip() {
        IpAddr::V4(_) => address.is_ipv4(),
        // Listening on [::] takes both.
        IpAddr::V6(ip) => address.is_ipv6() || ip.is_unspecified(),
    };
    let fitting: Vec<SocketAddr> = found.filter(family).take(4).collect();
    if fitting.is_empty() {
        return Err(format!("none of its addresses is of the kind presence.listen = \"{listen}\" takes"));
    }
    Ok(fitting)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn look(name: &str, listen: &str) -> Result<Vec<SocketAddr>, String> {
        lookup(name, listen.parse().unwrap()).await
    }

    #[tokio::test]
    async fn clients_are_told_the_public_addresses_of_the_kind_that_is_listened_on() {
        let v4 = vec!["192.0.2.7:7101".parse().unwrap()];
        let v6 = vec!["[2001:db8::7]:7101".parse().unwrap()];
        assert_eq!(look("192.0.2.7", "0.0.0.0:7101").await, Ok(v4.clone()));
        assert_eq!(look("192.0.2.7", "[::]:7101").await, Ok(v4));
        assert_eq!(look("2001:db8::7", "[::]:7101").await, Ok(v6));
        for (name, listen) in [("2001:db8::7", "0.0.0.0:7101"), ("192.0.2.7", "[2001:db8::7]:7101")] {
            let why = look(name, listen).await.unwrap_err();
            assert!(why.contains(listen), "{why}");
        }
    }
}
