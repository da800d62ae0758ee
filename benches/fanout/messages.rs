//! Reads gRPC messages that are xDS responses, however they are cut, and keeps of them only what a client needs:
//! resources are counted, and kept only if changes are looked for in them. A client that takes a megabyte of state so
//! holds none of it, and thousands of them fit beside the server.

use super::wire::{NONCE, RESOURCES, TYPE_URL};

const PREFIX: usize = 5;

/// Where in a message the reader is.
#[derive(Debug)]
enum Place {
    Prefix,
    Key,
    Length { field: u32 },
    Value { field: u32, left: usize },
}

/// What was kept of one response.
#[derive(Debug, Default)]
pub struct Response {
    pub type_url: Vec<u8>,
    pub nonce: Vec<u8>,
    pub resources: usize,
    /// The resources' bytes, if they are looked into.
    pub content: Vec<u8>,
    /// All of its bytes, if it is recorded.
    pub whole: Vec<u8>,
    pub bytes: usize,
}

impl Response {
    fn clear(&mut self) {
        self.type_url.clear();
        self.nonce.clear();
        self.content.clear();
        self.whole.clear();
        (self.resources, self.bytes) = (0, 0);
    }
}

/// What is kept of responses beyond their heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Heads,
    Resources,
    Everything,
}

#[derive(Debug)]
pub struct Messages {
    keep: Keep,
    place: Place,
    prefix: Vec<u8>,
    /// Bytes of the message that are still to come.
    left: usize,
    /// A number that is being read.
    varint: u64,
    shift: u32,
    response: Response,
}

impl Messages {
    pub fn new(keep: Keep) -> Self {
        let (prefix, response) = (Vec::with_capacity(PREFIX), Response::default());
        Self { keep, place: Place::Prefix, prefix, left: 0, varint: 0, shift: 0, response }
    }

    /// Takes a piece of the stream; every response that is whole goes to `done`.
    pub fn feed(&mut self, mut piece: &[u8], mut done: impl FnMut(&Response)) {
        while !piece.is_empty() {
            if matches!(self.place, Place::Prefix) {
                self.prefix(&mut piece);
                continue;
            }
            let here = piece.len().min(self.left);
            let (mut message, rest) = piece.split_at(here);
            if self.keep == Keep::Everything {
                self.response.whole.extend_from_slice(message);
            }
            while !message.is_empty() {
                self.step(&mut message);
            }
            self.left -= here;
            piece = rest;
            if self.left == 0 {
                self.place = Place::Prefix;
                done(&self.response);
            }
        }
    }

    fn prefix(&mut self, piece: &mut &[u8]) {
        let (head, rest) = piece.split_at(piece.len().min(PREFIX - self.prefix.len()));
        self.prefix.extend_from_slice(head);
        *piece = rest;
        if let [_, a, b, c, d] = self.prefix[..] {
            self.left = u32::from_be_bytes([a, b, c, d]) as usize;
            self.prefix.clear();
            self.response.clear();
            self.response.bytes = self.left;
            self.place = Place::Key;
        }
    }

    /// Reads on in a message: a number, or as much as there is of a value.
    fn step(&mut self, message: &mut &[u8]) {
        match self.place {
            Place::Prefix => {}
            Place::Key => {
                if let Some(key) = self.number(message) {
                    self.place = Place::Length { field: (key >> 3) as u32 };
                }
            }
            Place::Length { field } => {
                if let Some(length) = self.number(message) {
                    self.response.resources += usize::from(field == RESOURCES);
                    self.place = if length == 0 { Place::Key } else { Place::Value { field, left: length as usize } };
                }
            }
            Place::Value { field, left } => {
                let (value, rest) = message.split_at(left.min(message.len()));
                match field {
                    TYPE_URL => self.response.type_url.extend_from_slice(value),
                    NONCE => self.response.nonce.extend_from_slice(value),
                    RESOURCES if self.keep == Keep::Resources => self.response.content.extend_from_slice(value),
                    _ => {}
                }
                *message = rest;
                let left = left - value.len();
                self.place = if left == 0 { Place::Key } else { Place::Value { field, left } };
            }
        }
    }

    fn number(&mut self, message: &mut &[u8]) -> Option<u64> {
        while let Some((byte, rest)) = message.split_first() {
            *message = rest;
            self.varint |= u64::from(byte & 0x7f) << self.shift;
            self.shift = (self.shift + 7) % 64;
            if byte & 0x80 == 0 {
                self.shift = 0;
                return Some(std::mem::take(&mut self.varint));
            }
        }
        None
    }
}
