//! One connection of an app, from its first byte to its end.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use super::{Behaviour, End, Ended, Record, forward::forward, pattern};

/// Longest request head that the HTTP server reads.
const HEAD: u64 = 16 << 10;

pub(super) fn connection(stream: &TcpStream, peer: IpAddr, behaviour: &Behaviour, record: &Record) {
    let mut received = 0;
    let outcome = converse((stream, peer), behaviour, record, &mut received);
    let end = match outcome {
        Ok(end) => end,
        Err(error) => {
            tracing::trace!(%peer, %error, "an app's connection failed");
            End::Reset
        }
    };
    record.ended(Ended {
        peer,
        end,
        bytes: received,
        at: Instant::now(),
    });
}

fn converse(
    (stream, peer): (&TcpStream, IpAddr),
    behaviour: &Behaviour,
    record: &Record,
    received: &mut u64,
) -> io::Result<End> {
    stream.set_nodelay(true)?;
    let mut writer = stream;
    match behaviour {
        Behaviour::Echo => echo(stream, received),
        Behaviour::Early => {
            writer.write_all(b"early")?;
            stream.shutdown(Shutdown::Write)?;
            checked(stream, received)
        }
        Behaviour::Forward { space, backends } => forward(
            stream,
            space,
            turn(backends, record.accepted.load(Relaxed))?,
        ),
        Behaviour::Greet => {
            writer.write_all(b"220 ready\r\n")?;
            echo(stream, received)
        }
        Behaviour::Hello { version, instance } => hello(stream, version, instance, received),
        Behaviour::Hose => {
            pattern::write(stream, u64::MAX)?;
            Ok(End::Fin)
        }
        Behaviour::Late => {
            let end = checked(stream, received)?;
            pattern::write(stream, *received)?;
            stream.shutdown(Shutdown::Write)?;
            Ok(end)
        }
        Behaviour::Record => {
            writer.write_all(b"r")?;
            checked(stream, received)
        }
        Behaviour::Reset => reset(stream, received),
        Behaviour::Sink => sink(stream, received),
        Behaviour::Who => {
            writer.write_all(peer.to_canonical().to_string().as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            checked(stream, received)
        }
    }
}

/// Returns the backend whose turn it is.
fn turn(backends: &[SocketAddr], connection: u64) -> io::Result<SocketAddr> {
    let length = backends.len().max(1) as u64;
    usize::try_from(connection % length)
        .ok()
        .and_then(|at| backends.get(at).copied())
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn echo(stream: &TcpStream, received: &mut u64) -> io::Result<End> {
    let (mut reader, mut writer) = (stream, stream);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            return Ok(End::Fin);
        }
        *received += length as u64;
        writer.write_all(buffer.get(..length).unwrap_or_default())?;
    }
}

fn sink(stream: &TcpStream, received: &mut u64) -> io::Result<End> {
    let mut reader = stream;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(End::Fin),
            length => *received += length as u64,
        }
    }
}

/// Reads to the end, comparing with the pattern.
fn checked(stream: &TcpStream, received: &mut u64) -> io::Result<End> {
    let mut reader = stream;
    let mut place = pattern::Position::default();
    let mut wrong = None;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            return Ok(wrong.map_or(End::Fin, |offset| End::Wrong { offset }));
        }
        *received += length as u64;
        if wrong.is_none() {
            wrong = place.check(buffer.get(..length).unwrap_or_default()).err();
        }
    }
}

/// Answers one message, then resets: with `SO_LINGER` zero, closing sends RST.
fn reset(stream: &TcpStream, received: &mut u64) -> io::Result<End> {
    let (mut reader, mut writer) = (stream, stream);
    let mut buffer = [0; 4096];
    *received += reader.read(&mut buffer)? as u64;
    writer.write_all(b"partial")?;
    // The peer must have the answer before the reset overtakes it: it says so with a second message.
    *received += reader.read(&mut buffer)? as u64;
    // With zero linger the close that follows sends RST instead of FIN.
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    Err(io::ErrorKind::ConnectionReset.into())
}

fn hello(stream: &TcpStream, version: &str, instance: &str, received: &mut u64) -> io::Result<End> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut head = String::new();
        loop {
            let before = head.len();
            (&mut reader).take(HEAD).read_line(&mut head)?;
            if head.len() == before {
                return Ok(End::Fin);
            }
            if head.ends_with("\r\n\r\n") {
                break;
            }
        }
        *received += head.len() as u64;
        let body = format!("Hello version: {version}, instance: {instance}\n");
        let close = head.to_ascii_lowercase().contains("connection: close");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{}\r\n{body}",
            body.len(),
            if close { "Connection: close\r\n" } else { "" },
        );
        writer.write_all(answer.as_bytes())?;
        if close {
            return Ok(End::Fin);
        }
    }
}
