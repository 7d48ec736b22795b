//! A client of HTTP/2 with its bare hands, which sees how a stream ends: by END_STREAM, or by a reset.

use std::{future::poll_fn, net::SocketAddr};

use h2::{Reason, RecvStream, SendStream, client::SendRequest, ext::Protocol};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tower_realtime_auth::{
    bytes::Bytes,
    http::{HeaderMap, Method, StatusCode, request, response},
};

use super::{SOON, masked};

pub const TEXT: u8 = 0x81;
pub const CLOSE: u8 = 0x88;

/// One connection.
pub struct Client {
    pub address: SocketAddr,
    pub requests: SendRequest<Bytes>,
}

impl Client {
    pub async fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let client = Self { address, requests };
        // Its answer comes after the settings, which say that CONNECT may name a protocol.
        client.get("/", &[]).await;
        assert!(client.requests.is_extended_connect_protocol_enabled());
        client
    }

    /// Another connection to the same server.
    pub async fn another(&self) -> Self {
        Self::new(self.address).await
    }

    /// Asks for a WebSocket.
    pub async fn connect(&self, path: &str, headers: &[(&'static str, String)]) -> Stream {
        let request = extended_connect(path).header("sec-websocket-version", "13");
        self.send(with_headers(request, headers), false).await
    }

    pub async fn get(&self, path: &str, headers: &[(&'static str, String)]) -> Stream {
        let request = request::Builder::new().uri(format!("http://gateway.example:1{path}"));
        self.send(with_headers(request, headers), true).await
    }

    pub async fn send(&self, request: request::Builder, is_whole: bool) -> Stream {
        let mut requests = self.requests.clone().ready().await.expect("a connection that lives");
        let request = request.body(()).expect("a request");
        let (answer, send) = requests.send_request(request, is_whole).expect("a stream");
        let response = timeout(SOON, answer).await.expect("an answer in time").expect("an answer");
        let (head, recv) = response.into_parts();
        Stream { head, send, recv, read: Vec::new() }
    }

    /// Sends a request and does not wait.
    pub fn begin(
        &self,
        request: request::Builder,
        is_whole: bool,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let request = request.body(()).expect("a request");
        self.requests.clone().send_request(request, is_whole).expect("a stream")
    }
}

pub fn extended_connect(path: &str) -> request::Builder {
    request::Builder::new()
        .method(Method::CONNECT)
        .uri(format!("http://gateway.example:1{path}"))
        .extension(Protocol::from_static("websocket"))
}

pub fn with_headers(request: request::Builder, headers: &[(&str, String)]) -> request::Builder {
    headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
}

/// How the server's side of a stream came to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// In good order.
    Stream,
    Reset(Option<Reason>),
}

/// One stream, answered.
pub struct Stream {
    pub head: response::Parts,
    pub send: SendStream<Bytes>,
    pub recv: RecvStream,
    pub read: Vec<u8>,
}

impl Stream {
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The only value of this header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.headers.get_all(name).iter();
        let first = values.next()?;
        assert!(values.next().is_none(), "{name} twice");
        Some(first.to_str().expect("text"))
    }

    /// The JSON of an ordinary answer, to its end.
    pub async fn body(&mut self) -> Value {
        while self.more().await.expect("the body") {}
        serde_json::from_slice(&self.read).expect("JSON")
    }

    /// The JSON of a text message.
    pub async fn json(&mut self) -> Value {
        let (opcode, payload) = self.frame().await;
        assert_eq!(opcode, TEXT);
        serde_json::from_slice(&payload).expect("JSON")
    }

    /// One unmasked frame: its first byte and its payload.
    pub async fn frame(&mut self) -> (u8, Vec<u8>) {
        self.at_least(2).await;
        let (header, len) = match self.read[1] {
            126 => {
                self.at_least(4).await;
                (4, u16::from_be_bytes([self.read[2], self.read[3]]).into())
            }
            len => (2, usize::from(len)),
        };
        self.at_least(header + len).await;
        let frame: Vec<u8> = self.read.drain(..header + len).collect();
        (frame[0], frame[header..].to_vec())
    }

    /// Waits for the end, before which nothing more may come.
    pub async fn end(&mut self) -> End {
        loop {
            match self.more().await {
                Ok(true) => assert_eq!(self.read, b"", "more than was expected"),
                Ok(false) => return End::Stream,
                Err(error) => return End::Reset(error.reason()),
            }
        }
    }

    pub fn text(&mut self, text: &str) {
        self.write(masked(TEXT, text.as_bytes()).into(), false);
    }

    pub fn close(&mut self, code: u16) {
        self.write(masked(CLOSE, &code.to_be_bytes()).into(), false);
    }

    pub fn write(&mut self, bytes: Bytes, is_last: bool) {
        self.send.send_data(bytes, is_last).expect("a stream that takes data");
    }

    pub async fn at_least(&mut self, len: usize) {
        while self.read.len() < len {
            assert!(self.more().await.expect("a stream that lives"), "it ended within a frame");
        }
    }

    /// Reads more, if it is nothing but an empty frame; false at the end in good order.
    pub async fn more(&mut self) -> Result<bool, h2::Error> {
        let reading = poll_fn(|cx| self.recv.poll_data(cx));
        let Some(read) = timeout(SOON, reading).await.expect("data in time") else {
            return Ok(false);
        };
        let read = read?;
        self.recv.flow_control().release_capacity(read.len())?;
        self.read.extend_from_slice(&read);
        Ok(true)
    }
}
