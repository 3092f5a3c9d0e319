//! PROXY protocol: a load balancer below HTTP names the client address in front of the connection's
//! first byte. <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Fixed part of a header of version 2: signature, command, family and length.
const FIXED_BYTES: usize = 16;
/// Index of the byte with version and command.
const COMMAND: usize = 12;
/// Version 2, command LOCAL.
const LOCAL: u8 = 0x20;
/// Maximum length of the variable part. The specification asks receivers to accept 536 bytes in
/// total, and larger headers carry certificates, which are not used.
const MAX_VARIABLE_BYTES: usize = 4 * 1024;

/// Reads the header of version 2 and nothing after it. Returns the client address, or `None` for a
/// connection of the proxy itself, such as a health check.
pub(super) async fn read_header<I: AsyncRead + Unpin>(io: &mut I) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; FIXED_BYTES];
    io.read_exact(&mut header).await?;
    let length = usize::from(u16::from_be_bytes([header[FIXED_BYTES - 2], header[FIXED_BYTES - 1]]));
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    // The signature is checked before the length is used.
    let is_header = |result: Result<_, proxy_header::Error>| matches!(result, Ok(()) | Err(proxy_header::Error::BufferTooShort));
    if length > MAX_VARIABLE_BYTES || !is_header(ProxyHeader::parse(&header, config).map(drop)) {
        return Err(ErrorKind::InvalidData.into());
    }
    header.resize(FIXED_BYTES + length, 0);
    io.read_exact(&mut header[FIXED_BYTES..]).await?;
    // The addresses of the proxy's own connections are to be ignored, whatever they are.
    if header[COMMAND] == LOCAL {
        return Ok(None);
    }
    let (header, _) = ProxyHeader::parse(&header, config).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
    Ok(header.proxied_address().map(|proxied| proxied.source))
}

#[cfg(test)]
mod tests {
    use proxy_header::ProxiedAddress;

    use super::*;

    fn encoded(header: &ProxyHeader<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.encode_v2(&mut bytes).unwrap();
        bytes
    }

    fn of(client: &str) -> ProxyHeader<'static> {
        let client: SocketAddr = client.parse().unwrap();
        let server = if client.is_ipv4() { "203.0.113.1:443" } else { "[2001:db8::1]:443" };
        ProxyHeader::with_address(ProxiedAddress::stream(client, server.parse().unwrap()))
    }

    #[tokio::test]
    async fn header_names_the_client_and_leaves_the_rest() {
        for client in ["192.0.2.7:1234", "[2001:db8::7]:1234"] {
            let bytes = [encoded(&of(client)), b"GET /".to_vec()].concat();
            let mut rest = bytes.as_slice();
            assert_eq!(read_header(&mut rest).await.unwrap(), Some(client.parse().unwrap()));
            assert_eq!(rest, b"GET /");
        }
        assert_eq!(read_header(&mut encoded(&ProxyHeader::with_local()).as_slice()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn other_bytes_are_refused() {
        let header = encoded(&of("192.0.2.7:1234"));
        let with = |index: usize, byte: u8| {
            let mut changed = header.clone();
            changed[index] = byte;
            changed
        };
        let rows = [
            b"GET / HTTP/1.1\r\nhost: test\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 203.0.113.1 1234 443\r\n".to_vec(),
            with(0, b'x'),
            with(12, 0x31),
            with(13, 0x77),
            with(14, 0xff),
            with(15, 4),
            header[..20].to_vec(),
            Vec::new(),
        ];
        for row in rows {
            assert!(read_header(&mut row.as_slice()).await.is_err(), "{row:?}");
        }
    }
}
