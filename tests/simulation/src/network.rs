//! The simulated network: the only module that connects the transport to turmoil.

use std::{io, net::SocketAddr};

use futures_util::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, unfold},
};
use palisade_middleware::network::{Incoming, Io, Network};
use turmoil::net::{TcpListener, TcpStream};

/// Network of the current simulation.
#[derive(Debug)]
pub struct Turmoil;

impl Network for Turmoil {
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        async move { Ok(Box::new(TcpStream::connect((host, port)).await?) as Box<dyn Io>) }.boxed()
    }

    fn listen(&self, address: SocketAddr) -> Incoming {
        let listener = async move { TcpListener::bind(address).await };
        let accepted = stream::once(listener).flat_map(|listener| match listener {
            Ok(listener) => accept(listener).boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        });
        accepted.boxed()
    }
}

fn accept(listener: TcpListener) -> impl stream::Stream<Item = io::Result<(Box<dyn Io>, SocketAddr)>> {
    unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, peer)| (Box::new(stream) as Box<dyn Io>, peer));
        Some((accepted, listener))
    })
}
