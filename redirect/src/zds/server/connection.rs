//! One proxy's connection.

use super::registry::{Command, Registry, Seat, Ticket};
use crate::events::ZdsDisconnected;
use crate::zds::client::chain;
use crate::zds::message::{BadMessage, Order};
use crate::zds::session::AgentSession;
use crate::zds::wire::{BUFFER, Packets};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the proxy broke the protocol")]
    Bad(#[source] BadMessage),
    #[error("the proxy closed the connection")]
    Closed,
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("the proxy did not read or answer in time")]
    Late,
    #[error("too many messages waited for the proxy")]
    Overrun,
}

/// Serves one proxy until the connection ends.
pub(super) async fn serve(socket: OwnedFd, registry: Arc<Registry>) {
    let ended = match Packets::new(socket) {
        Ok(packets) => {
            let mut connection = Connection {
                deadline: registry.config().answer_deadline,
                packets,
                buffer: vec![0; BUFFER],
            };
            let ended = connection.run(&registry).await;
            connection.packets.close();
            ended
        }
        Err(error) => Ended::Broken(error),
    };
    let reason = chain(&ended);
    tracing::info!(%reason, "a proxy is gone");
    registry.events().zds_disconnected(&ZdsDisconnected {
        reason,
        pause: Duration::ZERO,
    });
}

struct Connection {
    packets: Packets,
    buffer: Vec<u8>,
    deadline: Duration,
}

impl Connection {
    async fn run(&mut self, registry: &Arc<Registry>) -> Ended {
        let mut session = match self.greet().await {
            Ok(session) => session,
            Err(ended) => return ended,
        };
        registry.events().zds_connected();
        let (mut seat, snapshot) = registry.enter();
        for order in snapshot {
            session.push(order, Ticket::Snapshot);
        }
        session.push(Order::SnapshotSent, Ticket::SnapshotEnd);
        loop {
            let result = match session.next_packet() {
                Some(outgoing) => {
                    let netns = outgoing.netns.as_ref().map(AsFd::as_fd);
                    let sent = timeout(self.deadline, self.packets.send(&outgoing.bytes, netns));
                    let sent = sent.await;
                    match sent {
                        Ok(Ok(())) => self.answer(&mut session, &mut seat).await,
                        Ok(Err(error)) => Err(Ended::Broken(error)),
                        Err(_elapsed) => Err(Ended::Late),
                    }
                }
                None => self.idle(&mut session, &mut seat).await,
            };
            if let Err(ended) = result {
                return ended;
            }
        }
    }

    async fn greet(&mut self) -> Result<AgentSession<Ticket>, Ended> {
        let packet = timeout(self.deadline, self.packets.receive(&mut self.buffer)).await;
        let packet = packet
            .map_err(|_elapsed| Ended::Late)?
            .map_err(Ended::Broken)?;
        let bytes = match self.buffer.get(..packet.length) {
            Some([]) | None => return Err(Ended::Closed),
            Some(bytes) => bytes,
        };
        AgentSession::greeted(bytes, &packet.descriptors, packet.truncated).map_err(Ended::Bad)
    }

    /// Waits for the answer to the message that was sent. Without one in time the connection
    /// ends: a late answer would be taken for the next message's.
    async fn answer(
        &mut self,
        session: &mut AgentSession<Ticket>,
        seat: &mut Seat,
    ) -> Result<(), Ended> {
        let packet = timeout(self.deadline, self.packets.receive(&mut self.buffer)).await;
        let packet = packet
            .map_err(|_elapsed| Ended::Late)?
            .map_err(Ended::Broken)?;
        let bytes = match self.buffer.get(..packet.length) {
            Some([]) | None => return Err(Ended::Closed),
            Some(bytes) => bytes,
        };
        let answer = session
            .received(bytes, &packet.descriptors, packet.truncated)
            .map_err(Ended::Bad)?;
        match answer.ticket {
            // Whoever asked may have stopped waiting.
            Ticket::Live(sender) => drop(sender.send(answer.outcome)),
            Ticket::Snapshot => {
                if let Err(text) = answer.outcome {
                    tracing::warn!(%text, "a proxy refused a pod of the snapshot");
                }
            }
            Ticket::SnapshotEnd => seat.synced(),
        }
        Ok(())
    }

    /// Nothing is outstanding: the next is a command, or the proxy's end.
    async fn idle(
        &mut self,
        session: &mut AgentSession<Ticket>,
        seat: &mut Seat,
    ) -> Result<(), Ended> {
        tokio::select! {
            command = seat.commands.recv() => {
                let Some(Command { order, answer }) = command else {
                    return Err(Ended::Overrun);
                };
                session.push(order, answer);
                Ok(())
            }
            packet = self.packets.receive(&mut self.buffer) => match packet {
                Ok(packet) if packet.length == 0 => Err(Ended::Closed),
                // Nothing was asked, so nothing may be said.
                Ok(_unasked) => Err(Ended::Bad(BadMessage::UnknownPayload)),
                Err(error) => Err(Ended::Broken(error)),
            },
        }
    }
}
