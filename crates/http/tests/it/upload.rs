//! Forms with files, and how far they are.

use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use trunkline_http::{Body, Multipart, Progress};

use crate::rig::{Server, enhanced, in_time};

/// Answers with the headers that matter and the body.
async fn echo() -> Server {
    Server::start_with(async |request: Request<Incoming>| {
        let header = |name: &str| {
            let value = request.headers().get(name);
            value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
        };
        let head = format!("{}\n{}\n", header("content-type"), header("content-length"));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut all = head.into_bytes();
        all.extend(body);
        Response::new(Body::from(all))
    })
    .await
}

#[tokio::test]
async fn a_form_arrives_as_it_was_put_together() {
    let server = echo().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a \"file\".bin");
    let content: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    std::fs::write(&path, &content).unwrap();
    let form = Multipart::new()
        .text("title", "Ünïcode\r\n--x")
        .bytes("na\"me\n\\", "b.csv", "text/csv", "1;2")
        .file("file", "application/octet-stream", &path)
        .await
        .unwrap();
    let content_type = form.content_type();
    let seen: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let told = Arc::clone(&seen);
    let client = enhanced(server.url());
    let request = client
        .post("/")
        .multipart(form)
        .on_progress(move |progress| told.lock().unwrap().push(progress));
    let answer = in_time(request.send())
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();

    let boundary = content_type.split_once("boundary=").unwrap().1;
    let mut body = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"title\"\r\n\r\nÜnïcode\r\n--x\r\n\
         --{boundary}\r\ncontent-disposition: form-data; name=\"na%22me%0A%5C\"; filename=\"b.csv\"\r\n\
         content-type: text/csv\r\n\r\n1;2\r\n\
         --{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a %22file%22.bin\"\r\n\
         content-type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend(&content);
    body.extend(format!("\r\n--{boundary}--\r\n").as_bytes());
    let mut expected = format!("{content_type}\n{}\n", body.len()).into_bytes();
    expected.extend(&body);
    assert!(
        answer == expected,
        "{}",
        String::from_utf8_lossy(&answer[..600])
    );

    let seen = seen.lock().unwrap();
    let total = u64::try_from(body.len()).unwrap();
    assert!(seen.iter().all(|progress| progress.total == Some(total)));
    assert!(seen.is_sorted_by(|one, next| one.sent < next.sent));
    assert_eq!(seen.last().unwrap().sent, total);
}

#[tokio::test]
async fn a_form_of_texts_can_be_sent_again_and_one_of_streams_has_no_length() {
    let form = Multipart::new().text("a", "b");
    assert!(form.into_body().unwrap().try_clone().is_some());

    let server = echo().await;
    let piece = futures_util::stream::iter([Ok::<_, trunkline_core::Error>("piece".into())]);
    let form = Multipart::new().part("s", None, None, Body::stream(piece));
    let client = enhanced(server.url());
    let answer = in_time(client.post("/").multipart(form).send())
        .await
        .unwrap();
    let answer = answer.text().await.unwrap();
    assert_eq!(answer.lines().nth(1), Some(""), "{answer}");
    assert!(answer.contains("\r\n\r\npiece\r\n--"), "{answer}");
}

#[tokio::test]
async fn what_cannot_be_sent_is_said_before() {
    let missing = Multipart::new()
        .file("f", "text/plain", "/nowhere/at/all")
        .await;
    assert!(missing.unwrap_err().to_string().contains("/nowhere/at/all"));
    let directory = Multipart::new().file("f", "text/plain", "/").await;
    assert!(directory.is_err());
    let wrong = Multipart::new().bytes("f", "x", "text/plain\r\nevil: 1", "y");
    assert!(
        wrong
            .into_body()
            .unwrap_err()
            .to_string()
            .contains("content type")
    );
}
