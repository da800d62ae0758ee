//! As much of HTTP/2 as one gRPC call of a client's own connection needs, and no more: bytes in, bytes out, no I/O.
//!
//! It stands here instead of a library because the load generator shares two cores with the server under test: what it
//! spends on a message would hide what the server spends. Headers are not read, since nothing in them is of use: a
//! stream that ends is a failure whatever they say.

use std::collections::VecDeque;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// The window that everybody has before a word is said of it.
const DEFAULT_WINDOW: u32 = 65_535;
/// The largest frame that is always allowed.
const MAX_FRAME: usize = 16_384;
const HEAD: usize = 9;
/// The call's stream.
const STREAM: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the server ended the stream")]
    Ended,
    #[error("the server reset the stream, code {0}")]
    Reset(u32),
    #[error("the server told to go away, code {0}: {1}")]
    GoAway(u32, String),
    #[error("a frame that is not valid")]
    Frame,
}

/// One connection with one call on it.
#[derive(Debug)]
pub struct Connection {
    /// What is to be written to the socket.
    pub out: Vec<u8>,
    /// Part of a frame.
    rest: Vec<u8>,
    /// Messages that found no room in the server's windows.
    waiting: VecDeque<Vec<u8>>,
    stream_window: i64,
    connection_window: i64,
    initial_window: i64,
    /// Our own window, and how much of it was used since it was last filled up.
    window: u32,
    used: u32,
}

impl Connection {
    /// Opens the connection and the call. `window` is how much the server may send before it is read.
    pub fn open(path: &str, authority: &str, window: u32) -> Self {
        let mut out = PREFACE.to_vec();
        head(&mut out, 6, SETTINGS, 0, 0);
        out.extend_from_slice(&INITIAL_WINDOW_SIZE.to_be_bytes());
        out.extend_from_slice(&window.to_be_bytes());
        if window > DEFAULT_WINDOW {
            fill_up(&mut out, 0, window - DEFAULT_WINDOW);
        }
        let headers = headers(path, authority);
        head(&mut out, headers.len(), HEADERS, END_HEADERS, STREAM);
        out.extend_from_slice(&headers);
        let default = i64::from(DEFAULT_WINDOW);
        Self {
            out,
            rest: Vec::new(),
            waiting: VecDeque::new(),
            stream_window: default,
            connection_window: default,
            initial_window: default,
            window,
            used: 0,
        }
    }

    /// Sends a message, as soon as the server's windows allow it.
    pub fn send(&mut self, message: &[u8]) {
        if self.waiting.is_empty() && message.len() as i64 <= self.stream_window.min(self.connection_window) {
            self.write(message);
        } else {
            self.waiting.push_back(message.to_vec());
            self.send_waiting();
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream_window -= bytes.len() as i64;
        self.connection_window -= bytes.len() as i64;
        for piece in bytes.chunks(MAX_FRAME) {
            head(&mut self.out, piece.len(), DATA, 0, STREAM);
            self.out.extend_from_slice(piece);
        }
    }

    fn send_waiting(&mut self) {
        while let Some(mut message) = self.waiting.pop_front() {
            let room = self.stream_window.min(self.connection_window).max(0) as usize;
            if message.len() > room {
                let kept = message.split_off(room);
                self.write(&message);
                self.waiting.push_front(kept);
                return;
            }
            self.write(&message);
        }
    }

    /// Takes what was read from the socket; the call's bytes go to `data`.
    pub fn receive(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<(), Broken> {
        if self.rest.is_empty() {
            let taken = self.frames(bytes, &mut data)?;
            self.rest.extend_from_slice(&bytes[taken..]);
            return Ok(());
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let taken = self.frames(&rest, &mut data)?;
        rest.drain(..taken);
        self.rest = rest;
        Ok(())
    }

    /// Reads whole frames; answers how many bytes they were.
    fn frames(&mut self, bytes: &[u8], data: &mut impl FnMut(&[u8])) -> Result<usize, Broken> {
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + HEAD) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let Some(payload) = bytes.get(at + HEAD..at + HEAD + length) else { break };
            self.frame(kind, flags, stream, payload, data)?;
            at += HEAD + length;
        }
        Ok(at)
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        data: &mut impl FnMut(&[u8]),
    ) -> Result<(), Broken> {
        match kind {
            DATA if flags & PADDED != 0 => return Err(Broken::Frame),
            DATA => {
                data(payload);
                self.consumed(payload.len() as u32);
            }
            SETTINGS if flags & ACK == 0 => self.settings(payload),
            PING if flags & ACK == 0 => {
                head(&mut self.out, payload.len(), PING, ACK, 0);
                self.out.extend_from_slice(payload);
            }
            WINDOW_UPDATE => {
                let window = if stream == 0 { &mut self.connection_window } else { &mut self.stream_window };
                *window += i64::from(number(payload, 0));
                self.send_waiting();
            }
            RST_STREAM => return Err(Broken::Reset(number(payload, 0))),
            GOAWAY => {
                let text = payload.get(8..).map(String::from_utf8_lossy).unwrap_or_default();
                return Err(Broken::GoAway(number(payload, 4), text.into()));
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 { Err(Broken::Ended) } else { Ok(()) }
    }

    fn settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            if u16::from_be_bytes([setting[0], setting[1]]) == INITIAL_WINDOW_SIZE {
                let size = i64::from(u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]));
                self.stream_window += size - self.initial_window;
                self.initial_window = size;
            }
        }
        head(&mut self.out, 0, SETTINGS, ACK, 0);
        self.send_waiting();
    }

    /// Gives the server its window back when half of it is used.
    fn consumed(&mut self, bytes: u32) {
        self.used += bytes;
        if self.used > self.window / 2 {
            fill_up(&mut self.out, 0, self.used);
            fill_up(&mut self.out, STREAM, self.used);
            self.used = 0;
        }
    }
}

/// A number in a frame; a frame too short for it has none.
fn number(payload: &[u8], at: usize) -> u32 {
    payload.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

fn fill_up(out: &mut Vec<u8>, stream: u32, by: u32) {
    head(out, 4, WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&by.to_be_bytes());
}

/// A gRPC call's request headers, in HPACK without compression.
fn headers(path: &str, authority: &str) -> Vec<u8> {
    // Of the static table: `:method: POST` and `:scheme: http`.
    let mut block = vec![0x83, 0x86];
    // Names of the static table (`:path`, `:authority`, `content-type`), values as they are.
    for (name, value) in [(&[0x04][..], path), (&[0x01], authority), (&[0x0f, 0x10], "application/grpc")] {
        block.extend_from_slice(name);
        text(&mut block, value);
    }
    block.push(0);
    text(&mut block, "te");
    text(&mut block, "trailers");
    block
}

fn text(block: &mut Vec<u8>, value: &str) {
    assert!(value.len() < 127, "a length of one byte");
    block.push(value.len() as u8);
    block.extend_from_slice(value.as_bytes());
}
