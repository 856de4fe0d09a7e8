//! Byte streams through the tunnel: order, ends and resets are exactly the app's own.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use meshwright_testbed::{
    Step, World, WorldError,
    apps::{App, Behaviour, End, Ended, pattern},
    client,
};

use crate::standard::{ECHO, SOON, assert_reaches};

/// Bytes in each direction of the half-close tests.
const GIBIBYTE: u64 = 1 << 30;
/// Longest wait for the next bytes while a gibibyte moves.
const MOVING: Duration = Duration::from_secs(30);

pub(crate) fn server_that_speaks_first_is_heard(world: &World) -> Result<(), WorldError> {
    let (from, to) = (world.pod("a1")?, world.pod("b1")?);
    let _app = world.app(to, 2525, Behaviour::Greet)?;
    for from in [from, world.pod("out")?] {
        let mut stream = from.space().connect(to.at(2525), SOON)?;
        let mut greeting = [0; 11];
        stream.read_exact(&mut greeting).step("hear the greeting")?;
        assert_eq!(&greeting, b"220 ready\r\n", "before the client said a word");
        stream.write_all(b"HELO a1\r\n").step("answer")?;
        let mut answer = [0; 9];
        stream.read_exact(&mut answer).step("hear the answer")?;
        assert_eq!(&answer, b"HELO a1\r\n");
    }
    Ok(())
}

/// The client finishes first; everything the server says afterwards arrives.
pub(crate) fn answer_after_half_close_arrives_whole(world: &World) -> Result<(), WorldError> {
    let (from, to) = (world.pod("a1")?, world.pod("b1")?);
    let app = world.app(to, 8083, Behaviour::Late)?;
    let stream = from.space().connect(to.at(8083), MOVING)?;
    pattern::write(&stream, GIBIBYTE).step("send a gibibyte")?;
    stream.shutdown(Shutdown::Write).step("finish")?;
    let received = pattern::read(&stream).step("receive a gibibyte after finishing")?;
    assert_eq!(received, GIBIBYTE, "after the client finished");
    let ended = end_of(world, &app)?;
    assert_eq!((ended.end, ended.bytes), (End::Fin, GIBIBYTE));
    Ok(())
}

/// The server finishes first; everything the client says afterwards arrives.
pub(crate) fn request_after_the_server_finished_arrives_whole(
    world: &World,
) -> Result<(), WorldError> {
    let (from, to) = (world.pod("a1")?, world.pod("b1")?);
    let app = world.app(to, 8083, Behaviour::Early)?;
    let mut stream = from.space().connect(to.at(8083), MOVING)?;
    let mut said = String::new();
    stream
        .read_to_string(&mut said)
        .step("hear the server finish")?;
    assert_eq!(said, "early");
    pattern::write(&stream, GIBIBYTE).step("send a gibibyte to a server that finished")?;
    stream.shutdown(Shutdown::Write).step("finish")?;
    let ended = end_of(world, &app)?;
    assert_eq!((ended.end, ended.bytes), (End::Fin, GIBIBYTE));
    Ok(())
}

pub(crate) fn reset_of_the_server_reaches_the_client_as_a_reset(
    world: &World,
) -> Result<(), WorldError> {
    let to = world.pod("b1")?;
    let _app = world.app(to, 8084, Behaviour::Reset)?;
    for from in [world.pod("a1")?, world.pod("out")?] {
        let mut stream = from.space().connect(to.at(8084), SOON)?;
        let mut answer = [0; 7];
        stream.write_all(b"one").step("ask")?;
        stream
            .read_exact(&mut answer)
            .step("hear a partial answer")?;
        assert_eq!(&answer, b"partial");
        stream.write_all(b"two").step("ask again")?;
        let outcome = stream.read(&mut answer).map_err(|error| error.kind());
        assert_eq!(
            outcome,
            Err(std::io::ErrorKind::ConnectionReset),
            "from {}: a broken answer must not look complete",
            from.name()
        );
    }
    Ok(())
}

pub(crate) fn reset_of_the_client_reaches_the_server_as_a_reset(
    world: &World,
) -> Result<(), WorldError> {
    let to = world.pod("b1")?;
    for from in [world.pod("a1")?, world.pod("out")?] {
        let app = world.app(to, 8085, Behaviour::Record)?;
        let mut stream = from.space().connect(to.at(8085), SOON)?;
        stream.read_exact(&mut [0]).step("be served")?;
        pattern::write(&stream, 100_000).step("send a part")?;
        client::reset(stream)?;
        assert_eq!(
            end_of(world, &app)?.end,
            End::Reset,
            "from {}: a broken request must not look complete",
            from.name()
        );
    }
    Ok(())
}

pub(crate) fn stalled_reader_does_not_stop_its_neighbours(world: &World) -> Result<(), WorldError> {
    let (from, to) = (world.pod("a1")?, world.pod("b1")?);
    let _hose = world.app(to, 8086, Behaviour::Hose)?;
    let _app = world.app(to, ECHO, Behaviour::Echo)?;
    // Connections that are written to as much as fits, and never read.
    let stalled: Vec<TcpStream> = (0..20)
        .map(|_| from.space().connect(to.at(8086), SOON))
        .collect::<Result<_, _>>()?;
    for stream in &stalled {
        // The first bytes are there: the server is writing.
        let mut first = [0];
        let seen = stream.peek(&mut first).step("see the hose run")?;
        assert_eq!(seen, 1);
    }
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_reaches(from, to.at(ECHO)));
        }
    });
    Ok(())
}

fn end_of(world: &World, app: &App) -> Result<Ended, WorldError> {
    world.until("the end of a connection", || app.ends().pop())
}
