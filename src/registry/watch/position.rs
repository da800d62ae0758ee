//! Where in the stream of changes a reader stands, and the token that brings it back there.
//!
//! A token is opaque to clients: the store's id and what `Token` prints. Everything that it says can be told again from
//! the log alone: of a merged batch it names the changes that were merged, and how much of the outcome was told.

use std::fmt;

use crate::model::Revision;

/// After a change: `ordinal` counts the changes of one write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    revision: Revision,
    ordinal: u32,
}

impl Position {
    /// After all of a revision.
    pub fn after(revision: Revision) -> Self {
        Self { revision, ordinal: u32::MAX }
    }

    /// After one change of a revision.
    pub fn within(revision: Revision, ordinal: u32) -> Self {
        Self { revision, ordinal }
    }

    pub fn revision(self) -> Revision {
        self.revision
    }

    fn parse(text: &str) -> Option<Self> {
        match text.split_once('.') {
            None => Some(Self::after(Revision(text.parse().ok()?))),
            Some((revision, ordinal)) => Some(Self::within(Revision(revision.parse().ok()?), ordinal.parse().ok()?)),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.revision)?;
        if self.ordinal == u32::MAX { Ok(()) } else { write!(f, ".{}", self.ordinal) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// Of a watch that has not yet told all that there is: there is nothing to resume from but the start.
    Start,
    At(Position),
    /// Changes after `after`, up to `until`, were merged; the first `told` of what they came to have been told.
    Merged {
        after: Position,
        until: Position,
        told: u32,
    },
}

impl Token {
    pub fn revision(self) -> Revision {
        match self {
            Self::Start => Revision::default(),
            Self::At(position) | Self::Merged { after: position, .. } => position.revision,
        }
    }

    /// Up to where it speaks of changes.
    pub(super) fn until(self) -> Position {
        match self {
            Self::Start => Position::default(),
            Self::At(position) => position,
            Self::Merged { until, .. } => until,
        }
    }

    /// None if it is not one to resume from.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.splitn(3, '~').collect();
        match parts[..] {
            [at] => Some(Self::At(Position::parse(at)?)),
            [after, until, told] => {
                let (after, until) = (Position::parse(after)?, Position::parse(until)?);
                (after <= until).then_some(Self::Merged { after, until, told: told.parse().ok()? })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => Ok(()),
            Self::At(position) => position.fmt(f),
            Self::Merged { after, until, told } => write!(f, "{after}~{until}~{told}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_as_they_were_written() {
        let (whole, part) = (Position::after(Revision(17)), Position::within(Revision(18), 2));
        for (token, text) in [
            (Token::At(whole), "17"),
            (Token::At(part), "18.2"),
            (Token::Merged { after: whole, until: part, told: 5 }, "17~18.2~5"),
        ] {
            assert_eq!((token.to_string(), Token::parse(text)), (text.to_owned(), Some(token)));
        }
        assert!(Position::within(Revision(17), 9) < whole && whole < part);
        for text in ["", "-1", "a", "1.", ".1", "1~2", "2~1~0", "1~2~", "1~2~3~4", "1.x", "99999999999999999999"] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
        assert_eq!(Token::Start.to_string(), "");
    }
}
