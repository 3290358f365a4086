//! Which HTTP is spoken.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::rig::{CLOSING, Front, Kind, OK, http2, patient, rest};
use crate::{
    domain::http::policy::HttpPolicy,
    proxy::engine::tests::rig::{Backend, local},
};

/// By ALPN, and HTTP/1 without it.
#[test]
fn tls_tells_the_version() {
    local(async {
        let backend = Backend::answering(OK).await;
        let policy = HttpPolicy::default();
        let front = Front::start(patient(), Kind::Tls, policy, backend.address);
        for protocols in [&["h2"][..], &["http/1.1", "h2"]] {
            let stream = front.connect_tls(protocols).await;
            let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            assert_eq!(agreed.as_deref(), Some(&b"h2"[..]));
            let (mut client, _connection) = http2(stream, 65_535).await;
            let request = Request::get("https://web/").body(Empty::<Bytes>::new());
            let response = client.send_request(request.unwrap()).await.unwrap();
            assert_eq!(
                (response.status().as_u16(), response.version()),
                (200, Version::HTTP_2)
            );
        }
        for protocols in [&["http/1.1"][..], &[]] {
            let mut stream = front.connect_tls(protocols).await;
            stream.write_all(CLOSING).await.unwrap();
            let got = rest(&mut stream).await;
            assert!(got.starts_with("HTTP/1.1 200 "), "{protocols:?}: {got:?}");
        }
    });
}

/// By the first bytes, in whatever pieces they come.
#[test]
fn first_bytes_tell_the_version() {
    local(async {
        let backend = Backend::answering(OK).await;
        let policy = HttpPolicy::default();
        let front = Front::start(patient(), Kind::Plain, policy, backend.address);
        for cut in [0, 1, 5, CLOSING.len() - 1] {
            let mut client = front.sending(&CLOSING[..cut]).await;
            tokio::task::yield_now().await;
            client.send(&CLOSING[cut..]).await;
            let got = client.rest().await;
            assert!(got.starts_with("HTTP/1.1 200 "), "{cut}: {got:?}");
        }
        let stream = TcpStream::connect(front.address).await.unwrap();
        let (mut client, _connection) = http2(stream, 65_535).await;
        for _ in 0..3 {
            let request = Request::get("http://web/").body(Empty::<Bytes>::new());
            let response = client.send_request(request.unwrap()).await.unwrap();
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "ok");
        }
    });
}
