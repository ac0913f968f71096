//! What the host chooses before the agent starts.

use std::net::SocketAddr;
use std::time::Duration;

use super::handle::AgentHandle;
use crate::config::Config;
use crate::error::Error;

/// The door to the agent.
#[derive(Debug)]
#[non_exhaustive]
pub struct Agent;

impl Agent {
    /// Begins to configure an agent for the service of this name.
    ///
    /// ```
    /// use streamgate_agent::Agent;
    ///
    /// let agent = Agent::builder("shop").listen(([127, 0, 0, 1], 0).into()).start()?;
    /// println!("http://{}/metrics", agent.address().unwrap());
    /// # Ok::<(), streamgate_agent::Error>(())
    /// ```
    pub fn builder(service: &str) -> Builder {
        Builder {
            config: Config::new(service),
        }
    }
}

/// An agent that has not started yet. Every setting has a safe default.
#[derive(Debug)]
#[must_use = "nothing happens before start()"]
pub struct Builder {
    pub(super) config: Config,
}

impl Builder {
    /// The service's version, shown in `target_info` and on the index page.
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.config.version);
        self
    }

    /// Where the agent listens; the default is `127.0.0.1:6060`, and port 0 takes a free one.
    ///
    /// An address beyond loopback is refused by [`start`](Self::start) unless
    /// [`allow_insecure_remote`](Self::allow_insecure_remote) says otherwise.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.config.address = Some(address);
        self.config.address_given = true;
        self
    }

    /// No listener: the host mounts [`AgentHandle::service`] or calls [`AgentHandle::respond`].
    pub fn no_listener(mut self) -> Self {
        self.config.address = None;
        self
    }

    /// Accepts an address beyond loopback although nothing protects it; `agent_insecure` is 1 then.
    pub fn allow_insecure_remote(mut self, allow: bool) -> Self {
        self.config.allow_insecure_remote = allow;
        self
    }

    /// Whether requests may change the running program, such as the allocator's decay times by
    /// `POST /debug/heap/tuning`; off by default. Every change is noted at `/debug/agent`.
    pub fn control(mut self, on: bool) -> Self {
        self.config.control = on;
        self
    }

    /// A further name by which clients call the listener; others than this, the listener's own
    /// address and `localhost` are refused, against DNS rebinding.
    pub fn host(mut self, name: &str) -> Self {
        self.config.hosts.push(name.to_ascii_lowercase());
        self
    }

    /// Whether CPU profiles may be taken; on by default. Off, nothing is sampled at all.
    pub fn profiling(mut self, on: bool) -> Self {
        self.config.profiling = on;
        self
    }

    /// Samples per second of CPU time that the flight recorder takes all the time, 1..=99 or 0 for
    /// off; the default is 19.
    ///
    /// It keeps the last 15 minutes in at most 16 MiB of samples, so that a profile of the past is
    /// there when somebody asks: `?ago=120&seconds=30`. Where it is off, profiles of the seconds to
    /// come can still be taken.
    ///
    /// ```
    /// use streamgate_agent::Agent;
    ///
    /// let agent = Agent::builder("shop").no_listener().recorder(49).start()?;
    /// # drop(agent);
    /// let error = Agent::builder("shop").no_listener().recorder(100).start().unwrap_err();
    /// assert_eq!(error.to_string(), "recorder must be 0 (off) or 1..=99 (got \"100\")");
    /// # Ok::<(), streamgate_agent::Error>(())
    /// ```
    pub fn recorder(mut self, hz: u32) -> Self {
        self.config.recorder = hz;
        self
    }

    /// The share of the host's CPU time that sampling may cost, above 0 and at most 0.5; the default
    /// is 0.03.
    ///
    /// When it costs more for 10 s, the rate is halved, down to 1 Hz, and doubled again when there is
    /// room; profiles, `/metrics` and `/debug/agent` say so. Half a percent of one core is allowed in
    /// any case: a share of an idle host is nothing.
    pub fn profiling_budget(mut self, share: f64) -> Self {
        self.config.profiling_budget = share;
        self
    }

    /// Times a minute that readers may have the sampling rate raised, 1..=600; the default is 6. A
    /// third of them may come at once.
    ///
    /// A profile of the seconds to come raises the rate if nobody else has it that high at the moment;
    /// one too many is answered 429 with `Retry-After`. Profiles of the past and those at or below the
    /// flight recorder's rate raise nothing.
    ///
    /// ```
    /// use streamgate_agent::Agent;
    ///
    /// let agent = Agent::builder("shop").no_listener().profile_raises(60).start()?;
    /// # drop(agent);
    /// let error = Agent::builder("shop").no_listener().profile_raises(0).start().unwrap_err();
    /// assert_eq!(error.to_string(), "profile_raises must be 1..=600 (got \"0\")");
    /// # Ok::<(), streamgate_agent::Error>(())
    /// ```
    pub fn profile_raises(mut self, per_minute: u32) -> Self {
        self.config.profile_raises = per_minute;
        self
    }

    /// Bytes allocated between two samples of the heap, on average: 1..=1,073,741,824, or 0 for no heap
    /// profiles; the default is 512 KiB, Go's.
    ///
    /// Without effect unless the host has made [`ProfiledAllocator`](crate::ProfiledAllocator) its
    /// own. A smaller distance makes estimates of small sites surer and costs more: 1 records every
    /// block. More than 500 samples a second double it until there are fewer.
    ///
    /// ```
    /// use streamgate_agent::Agent;
    ///
    /// let agent = Agent::builder("shop").no_listener().heap_sampling(64 << 10).start()?;
    /// # drop(agent);
    /// let error = Agent::builder("shop").no_listener().heap_sampling(1 << 31).start().unwrap_err();
    /// let text = "heap_sampling must be 0 (off) or 1..=1073741824 (got \"2147483648\")";
    /// assert_eq!(error.to_string(), text);
    /// # Ok::<(), streamgate_agent::Error>(())
    /// ```
    pub fn heap_sampling(mut self, mean_bytes: u64) -> Self {
        self.config.heap_sampling = mean_bytes;
        self
    }

    /// A name of the threads of an async runtime, where it is not tokio's own; call it for each.
    ///
    /// Threads whose names begin so are those that a wall-clock profile shows unless it is asked for
    /// others. They may be interrupted while they wait in a futex or an epoll set, which every runtime
    /// takes for a spurious wake-up. The kernel keeps 15 bytes of a thread's name.
    pub fn worker_threads(mut self, name: &str) -> Self {
        self.config.workers.push(name.to_owned());
        self
    }

    /// Allows profile requests of up to 999 samples per second instead of 250.
    pub fn high_rate(mut self, allow: bool) -> Self {
        self.config.high_rate = allow;
        self
    }

    /// The share of the memory limit above which [`AgentHandle::on_memory_pressure`] tells the host,
    /// above 0 and at most 1; the default is 0.8.
    ///
    /// The limit is the smaller of the machine's memory and the cgroup's, shown as
    /// `process_memory_limit_bytes`; the product is `process_memory_soft_limit_bytes`.
    ///
    /// ```
    /// use streamgate_agent::Agent;
    ///
    /// let agent = Agent::builder("shop").no_listener().memory_soft_limit(0.6).start()?;
    /// # drop(agent);
    /// let error = Agent::builder("shop").no_listener().memory_soft_limit(80.0).start().unwrap_err();
    /// let text = "memory_soft_limit must be above 0 and at most 1 (got \"80\")";
    /// assert_eq!(error.to_string(), text);
    /// # Ok::<(), streamgate_agent::Error>(())
    /// ```
    pub fn memory_soft_limit(mut self, share: f64) -> Self {
        self.config.memory_soft_limit = share;
        self
    }

    /// Label sets held over all families, 1..=1,000,000; the default is 50,000.
    pub fn series(mut self, series: usize) -> Self {
        self.config.series = series;
        self
    }

    /// Database operations slower than this are slow queries; the default is 1 s.
    pub fn slow_query(mut self, threshold: Duration) -> Self {
        self.config.slow_query = threshold;
        self
    }

    /// Pushes to an OpenTelemetry collector: metrics as protobuf over HTTP, all that `/metrics` shows, and the
    /// spans of requests that failed, were slow or are taken by the sampler.
    ///
    /// A thread of the agent's own sends them; a collector that is slow or gone delays nothing and loses
    /// nothing that the next push does not hold. At the end what has changed since is pushed once more.
    ///
    /// ```no_run
    /// use streamgate_agent::{Agent, Otlp};
    ///
    /// let agent = Agent::builder("shop").otlp(Otlp::from_env()?).start()?;
    /// # Ok::<(), streamgate_agent::Error>(())
    /// ```
    #[cfg(feature = "otlp")]
    pub fn otlp(mut self, otlp: crate::Otlp) -> Self {
        self.config.otlp = Some(otlp);
        self
    }

    /// Pushes CPU and heap profiles to Pyroscope, every 15 s.
    ///
    /// The CPU windows are those of the flight recorder, and follow each other without a gap; what a server
    /// misses is sent again for as long as the recorder holds it, 15 minutes. Of the heap goes what is in
    /// use, and what was allocated since the last that was taken.
    ///
    /// ```no_run
    /// use streamgate_agent::{Agent, Pyroscope};
    ///
    /// let pyroscope = Pyroscope::to("http://pyroscope:4040")?;
    /// let agent = Agent::builder("shop").pyroscope(pyroscope).start()?;
    /// # Ok::<(), streamgate_agent::Error>(())
    /// ```
    #[cfg(feature = "otlp-profiles")]
    pub fn pyroscope(mut self, pyroscope: crate::Pyroscope) -> Self {
        self.config.pyroscope = Some(pyroscope);
        self
    }

    /// Starts the agent's threads and its listener, which is bound when this returns.
    ///
    /// Called inside a tokio runtime, that runtime is measured as `main`.
    ///
    /// # Errors
    /// [`Error::is_address_in_use`] for a taken port, [`Error::is_out_of_range`] for a bad value,
    /// [`Error::is_refused`] for an unprotected address beyond loopback. The host decides whether
    /// to go on without an agent; nothing is left running.
    pub fn start(self) -> Result<AgentHandle, Error> {
        super::start(self.config)
    }
}
