//! Container output on disk: the CRI log format.
//!
//! One entry per line: `2016-10-06T00:17:09.669794202Z stdout F text`. The third word is `F` for a
//! line that is complete and `P` for a piece of one that the next entry of the same stream goes on.
//!
//! Source: `design-proposals/node/kubelet-cri-logging`, `pkg/kubelet/kuberuntime/logs`.

use jiff::Timestamp;

/// Which stream of a container an entry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry<'a> {
    /// When it was written.
    pub time: Timestamp,
    /// The time as the file has it.
    pub time_text: &'a str,
    /// The stream.
    pub stream: LogStream,
    /// Whether the line goes on in the next entry of the stream.
    pub partial: bool,
    /// The output, without a line end.
    pub text: &'a [u8],
}

/// Parses a line of a log file, without its line end. `None` for what is no entry.
pub fn parse(line: &[u8]) -> Option<LogEntry<'_>> {
    let mut words = line.splitn(4, |&b| b == b' ');
    let time_text = std::str::from_utf8(words.next()?).ok()?;
    let time = time_text.parse().ok()?;
    let stream = match words.next()? {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    // Tags are separated by colons, and only the first one means something.
    let partial = match words.next()?.split(|&b| b == b':').next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    let text = words.next().unwrap_or_default();
    Some(LogEntry { time, time_text, stream, partial, text })
}

/// Writes an entry with its line end. `text` must not hold a line end.
pub fn format_entry(
    out: &mut Vec<u8>,
    time: Timestamp,
    stream: LogStream,
    partial: bool,
    text: &[u8],
) {
    let tag = if partial { 'P' } else { 'F' };
    out.extend_from_slice(format!("{time:.9} {} {tag} ", stream.as_str()).as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_a_round_trip() {
        let time: Timestamp = "2016-10-06T00:17:09.669794202Z".parse().unwrap();
        let mut line = Vec::new();
        format_entry(&mut line, time, LogStream::Stderr, true, b"a b  c");
        assert_eq!(line, b"2016-10-06T00:17:09.669794202Z stderr P a b  c\n");
        let entry = parse(&line[..line.len() - 1]).unwrap();
        assert_eq!((entry.time, entry.partial, entry.text), (time, true, &b"a b  c"[..]));
        assert_eq!(entry.stream, LogStream::Stderr);
    }

    #[test]
    fn what_is_no_entry_is_none() {
        for line in ["", "x", "2016-10-06T00:17:09Z stdin F x", "now stdout F x", "2016"] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(parse(b"2016-10-06T00:17:09Z stdout F ").unwrap().text, b"");
    }
}
