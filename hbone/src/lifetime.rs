//! When a connection is pinged, drained or given up: the rules, without a clock of their own.

use crate::events::Limit;
use std::time::Duration;

/// As far ahead as timers look: settings may say "never", and the clock's type ends somewhere.
pub(crate) const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Times that both roles share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Between the start of the connection and the peer's SETTINGS (and their acknowledgement).
    pub(crate) settings: Duration,
    /// Between the start and the first request, on the server.
    pub(crate) first_request: Option<Duration>,
    /// Between PINGs, and until one must be answered.
    pub(crate) ping_every: Duration,
    pub(crate) ping_answer: Duration,
    /// Without a stream.
    pub(crate) idle: Duration,
    /// From the start until no new stream is taken.
    pub(crate) age: Duration,
}

/// What to do now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// Send a PING.
    Ping,
    /// Take no new streams and end when the last one has ended.
    Drain(Limit),
    /// End at once.
    Close(Limit),
}

/// One connection's timers; all times count from its start.
#[derive(Debug)]
pub(crate) struct Lifetime {
    times: Times,
    settings: bool,
    first_request: bool,
    next_ping: Duration,
    unanswered_since: Option<Duration>,
    idle_since: Option<Duration>,
    draining: bool,
}

impl Lifetime {
    pub(crate) fn new(times: Times) -> Self {
        Self {
            times,
            settings: false,
            first_request: times.first_request.is_none(),
            next_ping: times.ping_every,
            unanswered_since: None,
            idle_since: Some(Duration::ZERO),
            draining: false,
        }
    }

    /// The peer has sent (and acknowledged) SETTINGS.
    pub(crate) fn settings_done(&mut self) {
        self.settings = true;
    }

    /// A stream is open, or was just opened.
    pub(crate) fn streams(&mut self, open: bool, now: Duration) {
        if open {
            self.first_request = true;
            self.idle_since = None;
        } else {
            self.idle_since.get_or_insert(now);
        }
    }

    /// The PING was answered.
    pub(crate) fn pong(&mut self) {
        self.unanswered_since = None;
    }

    /// Somebody drains the connection.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// When to look again.
    pub(crate) fn next(&self) -> Duration {
        let times = &self.times;
        let ping = match self.unanswered_since {
            Some(since) => since.saturating_add(times.ping_answer),
            None => self.next_ping,
        };
        let settings = (!self.settings).then_some(times.settings);
        let first = times.first_request.filter(|_| !self.first_request);
        let idle = self
            .idle_since
            .map(|since| since.saturating_add(times.idle));
        let age = (!self.draining).then_some(times.age);
        [settings, first, idle, age]
            .into_iter()
            .flatten()
            .fold(ping.min(FAR), Duration::min)
    }

    /// What to do at `now`; asked again until it has nothing.
    pub(crate) fn poll(&mut self, now: Duration) -> Option<Action> {
        let times = self.times;
        if !self.settings && now >= times.settings {
            return Some(Action::Close(Limit::Settings));
        }
        if let Some(since) = self.unanswered_since {
            if now >= since.saturating_add(times.ping_answer) {
                return Some(Action::Close(Limit::Ping));
            }
        } else if now >= self.next_ping {
            self.next_ping = now.saturating_add(times.ping_every);
            self.unanswered_since = Some(now);
            return Some(Action::Ping);
        }
        if !self.first_request && times.first_request.is_some_and(|limit| now >= limit) {
            return Some(Action::Close(Limit::FirstRequest));
        }
        if let Some(since) = self.idle_since
            && now >= since.saturating_add(times.idle)
        {
            // A draining connection without streams ends by itself; this one does not.
            let limit = Limit::Idle;
            return Some(if self.draining {
                Action::Close(limit)
            } else {
                self.start_drain(now, limit)
            });
        }
        if !self.draining && now >= times.age {
            return Some(self.start_drain(now, Limit::Age));
        }
        None
    }

    fn start_drain(&mut self, now: Duration, limit: Limit) -> Action {
        self.draining = true;
        self.idle_since = self.idle_since.map(|_| now);
        Action::Drain(limit)
    }
}

/// How long a connection may take streams, so that none outlives the certificate by being new.
///
/// At most a day; at most the certificate's rest less a lead of a minute, or of a quarter of the
/// rest when that is shorter.
pub(crate) fn age_limit(max: Duration, certificate_rest: Duration) -> Duration {
    let lead = (certificate_rest / 4).min(Duration::from_secs(60));
    max.min(certificate_rest.saturating_sub(lead))
}

#[cfg(test)]
mod tests {
    use super::{Action, Lifetime, Times, age_limit};
    use crate::events::Limit;
    use meshwright_testkit::trace;
    use std::time::Duration;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lifetime() -> Lifetime {
        Lifetime::new(Times {
            settings: s(5),
            first_request: Some(s(15)),
            ping_every: s(10),
            ping_answer: s(10),
            idle: s(300),
            age: s(1000),
        })
    }

    /// Lets time pass as a driver does: every timer is served, every PING answered.
    fn run_until(lifetime: &mut Lifetime, end: Duration) -> Option<(Duration, Action)> {
        loop {
            let now = lifetime.next();
            if now > end {
                return None;
            }
            match lifetime.poll(now) {
                Some(Action::Ping) => lifetime.pong(),
                Some(action) => return Some((now, action)),
                None => panic!("woken at {now:?} for nothing"),
            }
        }
    }

    #[test]
    fn silence_after_the_preface_closes() {
        let _trace = trace();
        let mut silent = lifetime();
        assert_eq!(
            run_until(&mut silent, s(99)),
            Some((s(5), Action::Close(Limit::Settings)))
        );
    }

    #[test]
    fn connection_that_asks_for_nothing_closes() {
        let _trace = trace();
        let mut lifetime = lifetime();
        lifetime.settings_done();
        let end = run_until(&mut lifetime, s(99));
        assert_eq!(end, Some((s(15), Action::Close(Limit::FirstRequest))));
    }

    #[test]
    fn busy_connection_lives_until_its_age_and_is_then_drained_not_closed() {
        let _trace = trace();
        let mut lifetime = lifetime();
        lifetime.settings_done();
        lifetime.streams(true, s(1));
        let end = run_until(&mut lifetime, s(2000));
        assert_eq!(end, Some((s(1000), Action::Drain(Limit::Age))));
        assert_eq!(run_until(&mut lifetime, s(9000)), None, "its tunnels go on");
    }

    #[test]
    fn unanswered_ping_closes() {
        let _trace = trace();
        let mut lifetime = lifetime();
        lifetime.settings_done();
        lifetime.streams(true, s(1));
        assert_eq!(lifetime.poll(s(10)), Some(Action::Ping));
        assert_eq!(lifetime.poll(s(19)), None);
        assert_eq!(lifetime.next(), s(20));
        assert_eq!(lifetime.poll(s(20)), Some(Action::Close(Limit::Ping)));
    }

    #[test]
    fn idle_time_counts_from_the_last_stream() {
        let _trace = trace();
        let mut lifetime = lifetime();
        lifetime.settings_done();
        lifetime.streams(true, s(1));
        lifetime.streams(false, s(100));
        lifetime.streams(false, s(200));
        let end = run_until(&mut lifetime, s(999));
        assert_eq!(end, Some((s(400), Action::Drain(Limit::Idle))));
    }

    #[test]
    fn settings_that_say_never_are_kept() {
        let _trace = trace();
        let never = Duration::MAX;
        let mut lifetime = Lifetime::new(Times {
            settings: never,
            first_request: Some(never),
            ping_every: never,
            ping_answer: never,
            idle: never,
            age: never,
        });
        lifetime.streams(false, s(5));
        assert_eq!(lifetime.next(), super::FAR);
        assert_eq!(lifetime.poll(super::FAR), None);
    }

    #[test]
    fn age_leads_the_certificates_end() {
        let _trace = trace();
        let day = s(24 * 3600);
        assert_eq!(age_limit(day, s(100 * 3600)), day);
        assert_eq!(age_limit(day, s(3600)), s(3540));
        assert_eq!(
            age_limit(day, s(20)),
            s(15),
            "a quarter of a short lifetime"
        );
        assert_eq!(age_limit(day, s(0)), s(0));
    }
}
