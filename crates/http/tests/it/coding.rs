//! Bodies that are compressed on their way, and how large bodies may be.

use std::io::Write;

use bytes::Bytes;
use compression_codecs::brotli::params::EncoderParams;
use compression_codecs::core::Level;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::{
    BrotliDecoder, BrotliEncoder, DecodeV2, EncodeV2, GzipDecoder, GzipEncoder, ZstdDecoder,
    ZstdEncoder,
};
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use trunkline_core::ErrorKind;
use trunkline_core::size::ByteSize;
use trunkline_discovery::{Discovery, StaticList};
use trunkline_http::{
    Body, BodyTooLarge, CompressionConfig, ContentCoding, EnhancedHttpClient, Fallback,
    HttpClientConfig, ServiceError,
};

use crate::rig::{Raw, Server, in_time, instance, text};

const ALL: [ContentCoding; 3] = [ContentCoding::Zstd, ContentCoding::Br, ContentCoding::Gzip];

/// Compressed in one go, by the codec itself.
fn pack(coding: ContentCoding, data: &[u8]) -> Vec<u8> {
    let mut encoder: Box<dyn EncodeV2> = match coding {
        ContentCoding::Gzip => Box::new(GzipEncoder::new(Level::Default.into())),
        ContentCoding::Br => Box::new(BrotliEncoder::new(
            EncoderParams::default().quality(Level::Fastest),
        )),
        ContentCoding::Zstd => Box::new(ZstdEncoder::new(3)),
        other => panic!("{other}"),
    };
    let mut packed = vec![0; data.len() + 1024];
    let mut output = WriteBuffer::new_initialized(&mut packed);
    let mut input = PartialBuffer::new(data);
    while !input.unwritten().is_empty() {
        encoder.encode(&mut input, &mut output).unwrap();
    }
    while !encoder.finish(&mut output).unwrap() {}
    let length = output.written_len();
    packed.truncate(length);
    packed
}

fn unpack(coding: &str, data: &[u8]) -> Vec<u8> {
    let mut decoder: Box<dyn DecodeV2> = match coding {
        "gzip" => Box::new(GzipDecoder::new()),
        "br" => Box::new(BrotliDecoder::new()),
        "zstd" => Box::new(ZstdDecoder::new()),
        other => panic!("{other}"),
    };
    let mut plain = vec![0; 4 << 20];
    let mut output = WriteBuffer::new_initialized(&mut plain);
    let mut input = PartialBuffer::new(data);
    while !decoder.decode(&mut input, &mut output).unwrap() {}
    let length = output.written_len();
    plain.truncate(length);
    plain
}

/// Text that gets smaller, but is not the same all over.
fn sample(length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 32);
    let mut number = 7_u64;
    while text.len() < length {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        writeln!(text, "line {} of the text", number >> 48).unwrap();
    }
    text.truncate(length);
    text
}

fn client(url: String, set: impl FnOnce(&mut HttpClientConfig)) -> EnhancedHttpClient {
    let mut config = HttpClientConfig::new(url);
    config.compression = CompressionConfig::default().with_accept(ALL);
    set(&mut config);
    EnhancedHttpClient::from_config(config).unwrap()
}

/// Answers everything with these bytes under this coding.
async fn server(coding: &str, body: Vec<u8>) -> Server {
    let coding = coding.to_owned();
    Server::start_with(move |_| {
        let (coding, body) = (coding.clone(), body.clone());
        async move {
            Response::builder()
                .header("content-encoding", coding)
                .body(Body::from(body))
                .unwrap()
        }
    })
    .await
}

#[tokio::test]
async fn what_another_service_answers_in_place_is_read_as_well() {
    let data = sample(1000);
    let spare = server("gzip", pack(ContentCoding::Gzip, &data)).await;
    let discovery = Discovery::builder()
        .resolver(StaticList::new(vec![instance("spare", &spare)]).unwrap())
        .build();
    let gone = Server::start(|_| async { text("") }).await;
    gone.stop().await;
    let mut config = HttpClientConfig::new(gone.url());
    config.compression = CompressionConfig::default().with_accept(ALL);
    config.retry.enabled = Some(false);
    config.fallback.service = Some("spare".to_owned());
    let client = EnhancedHttpClient::builder()
        .config(config)
        .discovery(&discovery)
        .build()
        .unwrap();
    let response = in_time(client.get("/").send()).await.unwrap();
    assert_eq!(response.fallback(), Some(Fallback::Service));
    assert_eq!(response.bytes().await.unwrap(), data);
}

#[tokio::test]
async fn answers_are_read_as_they_were_before_they_were_compressed() {
    for length in [0, 1, 1000, 300_000] {
        let data = sample(length);
        for coding in ALL {
            let server = server(coding.as_str(), pack(coding, &data)).await;
            let client = client(server.url(), |_| ());
            let response = in_time(client.get("/").send()).await.unwrap();
            assert_eq!(response.header("content-encoding"), None);
            assert_eq!(response.header("content-length"), None);
            let read = in_time(response.bytes()).await.unwrap();
            assert!(read == data, "{coding} {length}");
            // The connection was read to its end and is used again.
            in_time(client.get("/").send())
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
            assert_eq!(server.count.total(), 1, "{coding} {length}");
        }
    }
}

#[tokio::test]
async fn wherever_the_pieces_are_cut_the_answer_is_the_same() {
    let data = sample(5000);
    for coding in ALL {
        let packed = pack(coding, &data);
        let pieces: Vec<Bytes> = packed.chunks(1).map(Bytes::copy_from_slice).collect();
        let server = Server::start_with(move |_| {
            let pieces = futures_util::stream::iter(
                pieces
                    .clone()
                    .into_iter()
                    .map(Ok::<_, trunkline_core::Error>),
            );
            async move {
                Response::builder()
                    .header("content-encoding", coding.as_str())
                    .body(Body::stream(pieces))
                    .unwrap()
            }
        })
        .await;
        let client = client(server.url(), |_| ());
        let read = in_time(client.get("/").send())
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        assert!(read == data, "{coding}");
    }
}

#[tokio::test]
async fn codings_on_top_of_each_other_and_members_behind_each_other_are_undone() {
    let data = sample(4000);
    let both = pack(ContentCoding::Zstd, &pack(ContentCoding::Gzip, &data));
    let server_of_both = server("gzip, ZSTD", both).await;
    let client_of_both = client(server_of_both.url(), |_| ());
    let read = in_time(client_of_both.get("/").send())
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert!(read == data);

    for coding in [ContentCoding::Gzip, ContentCoding::Zstd] {
        let two = [pack(coding, b"one "), pack(coding, b"two")].concat();
        let server = server(coding.as_str(), two).await;
        let client = client(server.url(), |_| ());
        let read = in_time(client.get("/").send())
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert_eq!(read, "one two");
    }

    let server = server("gzip, gzip, gzip, gzip", Vec::from("x")).await;
    let client = client(server.url(), |_| ());
    let error = in_time(client.get("/").send()).await.unwrap_err();
    assert!(
        error.to_string().contains("more content codings"),
        "{error}"
    );
    assert_eq!(server.count.requests(), 1, "not repeated");
}

#[tokio::test]
async fn a_bomb_is_given_up_at_the_limit_of_what_it_becomes() {
    for coding in ALL {
        let bomb = pack(coding, &vec![0; 16 << 20]);
        assert!(bomb.len() < 80_000, "{coding}: {}", bomb.len());
        let server = server(coding.as_str(), bomb).await;
        let client = client(server.url(), |config| {
            config.max_response_size = ByteSize::kib(100);
            config.max_stream_size = Some(ByteSize::kib(200));
        });
        let error = in_time(client.get("/").send()).await.unwrap().bytes().await;
        let error = trunkline_core::Error::from(error.unwrap_err());
        assert_eq!(error.find::<BodyTooLarge>().unwrap().limit, 100 * 1024);

        let response = in_time(client.get("/").send()).await.unwrap();
        let mut pieces = Box::pin(response.stream());
        let mut read = 0;
        let error = loop {
            match in_time(pieces.next()).await.unwrap() {
                Ok(piece) => {
                    assert!(piece.len() <= 64 * 1024, "{coding}: {}", piece.len());
                    read += piece.len();
                }
                Err(error) => break error,
            }
        };
        assert!(read <= 200 * 1024, "{coding}: {read}");
        assert_eq!(error.find::<BodyTooLarge>().unwrap().limit, 200 * 1024);
        assert!(pieces.next().await.is_none());
    }
}

/// A window of 128 MiB is asked for by one answer: no client should set aside as much.
#[tokio::test]
async fn a_window_larger_than_the_standard_allows_is_refused() {
    // A frame of zstd without a size, window descriptor 0x88 (2^27), one raw block of one byte, the last.
    let frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 0x09, 0x00, 0x00, b'x'];
    let server = server("zstd", frame).await;
    let client = client(server.url(), |_| ());
    let error = in_time(client.get("/").send())
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap_err();
    assert!(matches!(error, ServiceError::Validation(_)), "{error:?}");
}

#[tokio::test]
async fn what_is_not_what_it_says_is_an_error() {
    for coding in ALL {
        let whole = pack(coding, &sample(3000));
        let cut = whole[..whole.len() - 5].to_vec();
        let behind = [whole, Vec::from("behind")].concat();
        for wrong in [cut, behind, Vec::from("not compressed at all")] {
            let server = server(coding.as_str(), wrong.clone()).await;
            let client = client(server.url(), |_| ());
            let error = in_time(client.get("/").send()).await.unwrap().bytes().await;
            let error = error.expect_err(&format!("{coding} {wrong:?}"));
            assert!(
                error.to_string().contains("content-encoding"),
                "{coding}: {error}"
            );
            assert!(
                matches!(error, ServiceError::Validation(_)),
                "{coding}: {error:?}"
            );
        }
    }
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_touched() {
    let packed = pack(ContentCoding::Gzip, b"hello");
    let server = Server::start_with(move |request: Request<Incoming>| {
        let packed = packed.clone();
        async move {
            let accepted = request.headers().get("accept-encoding").cloned();
            let coding = match request.uri().path() {
                "/unknown" => "dcb",
                _ => "gzip",
            };
            let mut response = Response::builder().header("content-encoding", coding);
            if let Some(accepted) = accepted {
                response = response.header("accepted", accepted);
            }
            response.body(Body::from(packed)).unwrap()
        }
    })
    .await;
    let asking = client(server.url(), |_| ());
    let silent = client(server.url(), |config| {
        config.compression = CompressionConfig::default()
    });
    for (request, accepted) in [
        (silent.get("/"), None),
        (
            asking.get("/").header("accept-encoding", "gzip"),
            Some("gzip"),
        ),
        (asking.get("/").header("range", "bytes=0-3"), None),
        (asking.get("/unknown"), Some("zstd, br, gzip")),
    ] {
        let response = in_time(request.send()).await.unwrap();
        assert_eq!(response.header("accepted"), accepted);
        assert!(response.header("content-encoding").is_some());
        assert!(response.bytes().await.unwrap().starts_with(&[0x1f, 0x8b]));
    }
    let response = in_time(asking.get("/").send()).await.unwrap();
    assert_eq!(response.header("accepted"), Some("zstd, br, gzip"));
    assert_eq!(response.text().await.unwrap(), "hello");
}

/// The head of a HEAD, 204 or 304 speaks of a body that does not come.
#[tokio::test]
async fn a_coding_without_a_body_is_no_error() {
    let server = Server::scripted(|_, mut raw: Raw| async move {
        while let Some(request) = raw.request().await {
            let status = match request.split(' ').nth(1) {
                Some("/204") => "204 No Content",
                Some("/304") => "304 Not Modified",
                _ => "200 OK",
            };
            let length = if status.starts_with("200") {
                "content-length: 0\r\n"
            } else {
                ""
            };
            raw.write(format!(
                "HTTP/1.1 {status}\r\ncontent-encoding: br\r\n{length}\r\n"
            ))
            .await;
        }
    })
    .await;
    let client = client(server.url(), |_| ());
    for path in ["/204", "/304", "/"] {
        let response = in_time(client.get(path).send()).await.unwrap();
        assert_eq!(response.bytes().await.unwrap(), "");
    }
    let head = in_time(client.request(http::Method::HEAD, "/").send())
        .await
        .unwrap();
    assert_eq!(
        head.header("content-encoding"),
        Some("br"),
        "it says what a GET would bring"
    );
    assert_eq!(head.bytes().await.unwrap(), "");
}

/// Says which headers came, and what the body was before it was compressed.
async fn reader() -> Server {
    Server::start_with(async |request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        let header = |name: &str| {
            let value = parts.headers.get(name);
            value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
        };
        let (coding, length) = (header("content-encoding"), header("content-length"));
        let body = body.collect().await.unwrap().to_bytes();
        let plain = match &*coding {
            "" => body.to_vec(),
            coding => unpack(coding, &body),
        };
        Response::builder()
            .header("coding-was", coding)
            .header("length-was", length)
            .header("size-was", body.len())
            .body(Body::from(plain))
            .unwrap()
    })
    .await
}

#[tokio::test]
async fn requests_are_compressed_where_that_is_worth_it() {
    let server = reader().await;
    let data = sample(200_000);
    for coding in ALL {
        let client = client(server.url(), |config| {
            config.compression = CompressionConfig::default().with_request(coding);
        });
        let small = in_time(client.post("/").body("small").send())
            .await
            .unwrap();
        assert_eq!(small.header("coding-was"), Some(""));
        let picture = client
            .post("/")
            .header("content-type", "image/png")
            .body(data.clone());
        let picture = in_time(picture.send()).await.unwrap();
        assert_eq!(picture.header("coding-was"), Some(""));
        let empty = in_time(client.post("/").compress(coding).send())
            .await
            .unwrap();
        assert_eq!(empty.header("coding-was"), Some(""));

        let large = in_time(client.post("/").body(data.clone()).send())
            .await
            .unwrap();
        assert_eq!(large.header("coding-was"), Some(coding.as_str()));
        assert_eq!(
            large.header("length-was"),
            large.header("size-was"),
            "its length is known"
        );
        let size: usize = large.header("size-was").unwrap().parse().unwrap();
        assert!(size < data.len() / 2, "{coding}: {size}");
        assert!(large.bytes().await.unwrap() == data);

        let pieces: Vec<_> = data
            .chunks(7000)
            .map(|piece| Ok::<_, trunkline_core::Error>(Bytes::copy_from_slice(piece)))
            .collect();
        let stream = Body::stream(futures_util::stream::iter(pieces));
        let streamed = in_time(client.post("/").body(stream).send()).await.unwrap();
        assert_eq!(streamed.header("coding-was"), Some(coding.as_str()));
        assert_eq!(streamed.header("length-was"), Some(""));
        assert!(streamed.bytes().await.unwrap() == data);
    }
    let plain = client(server.url(), |_| ());
    let asked = plain.post("/").body("small").compress(ContentCoding::Gzip);
    assert_eq!(
        in_time(asked.send()).await.unwrap().header("coding-was"),
        Some("gzip")
    );
}

/// What waits for an answer to its last piece must not be held back until a block is full.
#[tokio::test]
async fn a_piece_of_a_stream_goes_out_before_the_next_one_comes() {
    for coding in ALL {
        let server = Server::scripted(move |_, mut raw: Raw| async move {
            let head = raw.request().await.unwrap();
            assert!(
                head.contains(&format!("content-encoding: {coding}")),
                "{head}"
            );
            raw.some_bytes().await;
            raw.answer("it came").await;
            raw.until_closed().await;
        })
        .await;
        let client = client(server.url(), |_| ());
        let first =
            futures_util::stream::iter([Ok::<_, trunkline_core::Error>(Bytes::from("first"))]);
        let body = Body::stream(first.chain(futures_util::stream::pending()));
        let answer = in_time(client.post("/").body(body).compress(coding).send())
            .await
            .unwrap();
        assert_eq!(answer.text().await.unwrap(), "it came");
    }
}

#[tokio::test]
async fn a_body_larger_than_allowed_is_not_sent() {
    let server = reader().await;
    let client = client(server.url(), |config| {
        config.max_request_size = Some(ByteSize::kib(1));
        config.compression = CompressionConfig::default().with_request(ContentCoding::Gzip);
    });
    let fits = in_time(client.post("/").body(vec![b'x'; 1024]).send())
        .await
        .unwrap();
    assert_eq!(fits.header("coding-was"), Some("gzip"));
    let requests = server.count.requests();
    let error = in_time(client.post("/").body(vec![b'x'; 1025]).send())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert_eq!(server.count.requests(), requests, "it was not sent");

    let pieces =
        std::iter::repeat_with(|| Ok::<_, trunkline_core::Error>(Bytes::from_static(&[b'x'; 500])));
    let stream = Body::stream(futures_util::stream::iter(pieces.take(100)));
    let error = in_time(client.post("/").body(stream).send())
        .await
        .unwrap_err();
    let error = trunkline_core::Error::from(error);
    assert_eq!(
        error.find::<BodyTooLarge>().unwrap().limit,
        1024,
        "{error:?}"
    );
}
