//! A registry, and everything that happens to one, while a service is called that is found by it: callers go on as long as
//! there is an instance to call, and learn the truth as soon as the registry is back.
//!
//! Instances are processes that announce themselves over one link, callers look them up over another. Both links, and the
//! server, fail on demand; instances come, leave and die meanwhile.

mod judge;
mod plan;
mod show;

use anyhow::Result;

use self::show::Show;
use super::registries::{self, Subject};
use crate::entry::{Entry, Options};
use crate::report::Report;

pub(super) static ON_EMBEDDED: Entry = Entry {
    name: "discovery-chaos-embedded",
    about: "announcements in the embedded registry removed while instances come, leave and die: no call fails that had an instance to go to.",
    run: |options| prove(options, &registries::ON_EMBEDDED),
};

pub(super) static ON_CONSUL: Entry = Entry {
    name: "discovery-chaos-consul",
    about: "Consul killed, wiped, paused and cut off while instances come, leave and die: no call fails that had an instance to go to.",
    run: |options| prove(options, &registries::ON_CONSUL),
};

pub(super) static ON_ETCD: Entry = Entry {
    name: "discovery-chaos-etcd",
    about: "etcd killed, wiped, paused, cut off and compacted while instances come, leave and die: no call fails that had an instance to go to.",
    run: |options| prove(options, &registries::ON_ETCD),
};

pub(super) static ON_KUBERNETES: Entry = Entry {
    name: "discovery-chaos-kubernetes",
    about: "the API server of Kubernetes killed, wiped, paused, cut off and compacted while instances come, leave and die: no call fails that had an instance to go to.",
    run: |options| prove(options, &registries::ON_KUBERNETES),
};

pub(super) static ON_DNS: Entry = Entry {
    name: "discovery-chaos-dns",
    about: "a server of DNS killed, wiped, paused and cut off while instances come, leave and die: no call fails that had an instance to go to.",
    run: |options| prove(options, &registries::ON_DNS),
};

pub(super) static ON_SEVERAL: Entry = Entry {
    name: "discovery-chaos-several",
    about: "Consul and etcd at once, now the one, now the other killed, wiped, paused, cut off while instances come, leave and die: no call fails that had an instance to go to.",
    run: |options| prove(options, &registries::ON_SEVERAL),
};

fn prove(options: &Options, subject: &Subject) -> Result<Report> {
    let seed = options.seed();
    let acts = plan::acts(subject, options.quick, seed);
    eprintln!("the seed is {seed}");
    let mut show = Show::open(subject, seed)?;
    for (act, meanwhile) in &acts {
        show.play(*act, *meanwhile)?;
    }
    let evidence = show.close()?;
    let mut report = Report::new();
    judge::judge(&mut report, subject, &evidence);
    report.note(format!(
        "{}: what happened when was chosen by the seed {seed}; `--seed {seed}` does it again",
        subject.name
    ));
    Ok(report)
}
