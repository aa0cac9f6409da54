//! `trunkline services`

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, SelectAll};
use tokio::time::MissedTickBehavior;
use trunkline::discovery::{
    AnyRegistry, AnyResolver, InstanceList, Lease, Registry as _, Resolver as _, ServiceInstance,
    ServiceName, Several,
};

use crate::cli::{self, Services};
use crate::exit::{ExitCode, UsageError};
use crate::open;
use crate::output::{Output, table};
use crate::stop;

/// Which services there are is asked so often where all are watched: registries tell of those that are known.
const NEW_SERVICES: Duration = Duration::from_secs(2);

pub(crate) async fn run(command: Services, output: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Services::List { url, name } => list(&url, name.as_deref(), output).await,
        Services::Watch { url, name, count } => watch(&url, name.as_deref(), count, output).await,
        Services::Register(args) => register(args, output).await,
        Services::Deregister {
            url,
            name,
            instance,
        } => deregister(&url, &name, &instance, output).await,
    }
}

async fn list(url: &str, name: Option<&str>, output: &Output) -> anyhow::Result<ExitCode> {
    let (resolver, several) = open::resolver(url)?;
    let names = names(&resolver, name).await?;
    let mut instances = Vec::new();
    for name in &names {
        instances.extend(resolver.resolve(name).await?.instances);
    }
    output.result(&instances, |instances| instance_table(instances))?;
    if let Some(several) = several {
        tell_apart(&several, &names, output);
    }
    Ok(ExitCode::Done)
}

/// Which registries could not be asked, and about which services the others differ.
fn tell_apart(several: &Several, names: &[ServiceName], output: &Output) {
    for member in several.standing() {
        if let Some(problem) = member.problem {
            output.warn(format!("{}: {problem}", member.name));
        }
    }
    for name in names {
        if let Some(differ) = several.disagreement(name) {
            output.warn(format!("{name}: the registries differ: {differ}"));
        }
    }
}

async fn names(resolver: &AnyResolver, name: Option<&str>) -> anyhow::Result<Vec<ServiceName>> {
    match name {
        Some(name) => Ok(vec![ServiceName::new(name)?]),
        None => Ok(resolver.services().await?),
    }
}

async fn watch(
    url: &str,
    name: Option<&str>,
    count: Option<u64>,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let (resolver, several) = open::resolver(url)?;
    let mut lists = SelectAll::new();
    let mut known = HashSet::new();
    for name in names(&resolver, name).await? {
        lists.push(watch_of(&resolver, &name).await?);
        known.insert(name);
    }
    if lists.is_empty() {
        output.warn("no service is registered");
        return Ok(ExitCode::Done);
    }
    let all = name.is_none();
    let mut stop = std::pin::pin!(stop::asked());
    let mut look = tokio::time::interval(NEW_SERVICES);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        let next = tokio::select! {
            next = lists.next() => next,
            _ = look.tick(), if all => {
                let looked = tokio::select! {
                    looked = add_new(&resolver, &mut known, &mut lists) => looked,
                    () = &mut stop => break,
                };
                if let Err(error) = looked {
                    output.warn(format!("new services are not seen: {}", error.report()));
                }
                continue;
            }
            () = &mut stop => None,
        };
        let Some((name, list)) = next else { break };
        match list {
            Ok(list) => {
                show_list(&name, &list, output)?;
                if let Some(several) = &several {
                    tell_apart(several, &[name], output);
                }
                shown += 1;
            }
            Err(error) => output.warn(format!("{name}: {}", error.report())),
        }
    }
    Ok(ExitCode::Done)
}

type Lists = BoxStream<'static, (ServiceName, trunkline::Result<InstanceList>)>;

async fn watch_of(resolver: &AnyResolver, name: &ServiceName) -> trunkline::Result<Lists> {
    let watch = resolver.watch(name).await?;
    let name = name.clone();
    Ok(watch.map(move |list| (name.clone(), list)).boxed())
}

/// Watches the services that were not known before, too. One that cannot be watched is tried the next time.
async fn add_new(
    resolver: &AnyResolver,
    known: &mut HashSet<ServiceName>,
    lists: &mut SelectAll<Lists>,
) -> trunkline::Result<()> {
    for name in resolver.services().await? {
        if !known.contains(&name) {
            lists.push(watch_of(resolver, &name).await?);
            known.insert(name);
        }
    }
    Ok(())
}

fn show_list(name: &ServiceName, list: &InstanceList, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json_line(&serde_json::json!({
            "service": name,
            "revision": list.revision,
            "instances": list.instances,
        }));
    }
    output.line(format!("{name}: {} instance(s)", list.instances.len()))?;
    if list.instances.is_empty() {
        return Ok(());
    }
    output.line(instance_table(&list.instances))
}

fn instance_table(instances: &[ServiceInstance]) -> String {
    let rows = instances.iter().map(|instance| {
        let metadata: Vec<String> = instance
            .metadata
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        [
            instance.name.to_string(),
            instance.base_url(),
            instance.status.to_string(),
            instance.version.clone(),
            metadata.join(","),
            instance.id.clone(),
        ]
    });
    table(
        ["SERVICE", "ADDRESS", "STATUS", "VERSION", "METADATA", "ID"],
        rows,
    )
}

async fn register(args: cli::Register, output: &Output) -> anyhow::Result<ExitCode> {
    let instance = instance_of(&args)?;
    let (registry, _resolver) = open::registry(&args.url)?;
    let mut stop = std::pin::pin!(stop::asked());
    let mut lease = registry.register(instance.clone(), args.ttl).await?;
    let shown = serde_json::json!({ "registered": instance });
    if output.is_json() {
        output.json_line(&shown)?;
    } else {
        output.line(format!(
            "registered {} at {}; Ctrl-C withdraws it",
            instance.name,
            instance.base_url()
        ))?;
    }
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = tokio::time::sleep(args.ttl / 3) => {}
        }
        lease = keep(&registry, lease, &instance, args.ttl, output).await;
    }
    registry.deregister(&lease).await?;
    Ok(ExitCode::Done)
}

/// Renews, registers again where the lease was lost, and goes on trying while the registry is away.
async fn keep(
    registry: &AnyRegistry,
    lease: Lease,
    instance: &ServiceInstance,
    ttl: Duration,
    output: &Output,
) -> Lease {
    let Err(lost) = registry.renew(&lease, instance).await else {
        return lease;
    };
    output.warn(format!(
        "the registration could not be renewed: {}",
        lost.report()
    ));
    match registry.register(instance.clone(), ttl).await {
        Ok(lease) => {
            output.warn("registered again");
            lease
        }
        Err(error) => {
            output.warn(format!("and not made again: {}", error.report()));
            lease
        }
    }
}

fn instance_of(args: &cli::Register) -> anyhow::Result<ServiceInstance> {
    let wrong = || {
        UsageError(format!(
            "`{}` is no address; write HOST:PORT or [IPV6]:PORT",
            args.address
        ))
    };
    let (host, port) = args.address.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(wrong)?;
    let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let sound = match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        // Where such an address ends and the port begins is anybody's guess.
        None => !host.is_empty() && !host.contains([':', '[', ']']),
    };
    if !sound {
        return Err(wrong().into());
    }
    let host = bracketed.unwrap_or(host);
    let mut instance = ServiceInstance::new(ServiceName::new(&args.name)?, host, port);
    instance.version.clone_from(&args.version);
    // Something that is not a service of Trunkline need not answer at the usual path.
    instance.health_check_path = args.health_check_path.clone().unwrap_or_default();
    instance.metadata.extend(args.metadata.iter().cloned());
    Ok(instance)
}

async fn deregister(
    url: &str,
    name: &str,
    instance: &str,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let (registry, resolver) = open::registry(url)?;
    let list = resolver.resolve(&ServiceName::new(name)?).await?;
    let found: Vec<_> = list
        .instances
        .into_iter()
        .filter(|known| known.id == instance || known.authority() == instance)
        .collect();
    if found.is_empty() {
        let missing = format!("{name} has no instance {instance}");
        return Err(trunkline::Error::not_found(missing).into());
    }
    for known in &found {
        registry
            .deregister(&Lease::new(&known.id, "", Duration::ZERO))
            .await?;
    }
    output.result(&found, |found| {
        format!("withdrew {} instance(s) of {name}", found.len())
    })?;
    Ok(ExitCode::Done)
}
