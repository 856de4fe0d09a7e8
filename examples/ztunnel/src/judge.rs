//! Judging live connections again, now and when a hold ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use meshwright_policy::{Concerned, Hold, Judged, Live, Subject};
use meshwright_xds_client::workload::Reader;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long a live connection may stay after its workload began to list a policy that nobody has sent.
const HOLD: Duration = Duration::from_secs(10);

/// Holds that begin this close together end together.
const TOGETHER: Duration = Duration::from_millis(500);

/// Judges all live connections again when something changed.
#[derive(Debug)]
pub(crate) struct Judge {
    live: Live,
    /// The last hold that began; ending it ends those before it.
    holds: watch::Sender<Option<Hold>>,
}

/// Ends holds when their time is over: run it beside the handlers.
#[derive(Debug)]
pub(crate) struct Holds {
    live: Live,
    begun: watch::Receiver<Option<Hold>>,
}

/// Creates a judge and the ender of the holds that it begins.
pub(crate) fn judge(live: Live) -> (Judge, Holds) {
    let (holds, begun) = watch::channel(None);
    let ender = Holds {
        live: live.clone(),
        begun,
    };
    (Judge { live, holds }, ender)
}

/// Answers which policies a workload lists now.
pub(crate) fn subjects(workloads: Reader) -> impl meshwright_policy::Subjects {
    move |uid: &str, judge: &mut dyn FnMut(Subject<'_>)| {
        if let Some(workload) = workloads.snapshot().workload_by_uid(uid) {
            judge(Subject::new(
                workload.namespace(),
                workload.authorization_policies(),
            ));
        }
    }
}

impl Judge {
    /// Judges every live connection by what is in force now.
    pub(crate) fn again(&self) {
        self.note(&self.live.judge_again(Concerned::All));
    }

    /// Judges the live connections of some workloads by what is in force now.
    pub(crate) fn again_of(&self, workloads: &[Arc<str>]) {
        let mut all = Judged::default();
        for workload in workloads {
            let judged = self.live.judge_again(Concerned::Workload(workload));
            all.judged += judged.judged;
            all.revoked += judged.revoked;
            all.held += judged.held;
            all.hold = judged.hold;
        }
        self.note(&all);
    }

    fn note(&self, judged: &Judged) {
        if judged.revoked > 0 {
            tracing::info!(
                closed = judged.revoked,
                judged = judged.judged,
                "live connections are no longer allowed"
            );
        }
        if judged.held > 0 {
            self.holds.send_replace(Some(judged.hold));
        }
    }
}

impl Holds {
    /// Ends holds until the judge is dropped.
    pub(crate) async fn run(mut self) {
        let mut waiting: VecDeque<(Instant, Hold)> = VecDeque::new();
        loop {
            let next = waiting.front().map(|(end, _)| *end);
            let ends = async {
                match next {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                begun = self.begun.changed() => match begun {
                    Ok(()) => {
                        if let Some(hold) = *self.begun.borrow_and_update() {
                            note(&mut waiting, hold);
                        }
                    }
                    Err(_judge_is_gone) => return,
                },
                () = ends => if let Some((_, hold)) = waiting.pop_front() {
                    self.end(hold);
                },
            }
        }
    }

    fn end(&self, hold: Hold) {
        let judged = self.live.end_hold(hold);
        if judged.revoked > 0 {
            tracing::warn!(
                closed = judged.revoked,
                "a listed policy did not arrive; connections under it are closed"
            );
        }
    }
}

fn note(waiting: &mut VecDeque<(Instant, Hold)>, hold: Hold) {
    let end = Instant::now() + HOLD;
    match waiting.back_mut() {
        Some((last, newest)) if end.duration_since(*last) < TOGETHER => *newest = hold,
        _ => waiting.push_back((end, hold)),
    }
}
