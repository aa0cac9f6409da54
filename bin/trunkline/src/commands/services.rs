//! `trunkline services`

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{SelectAll, select_all};
use trunkline::discovery::{
    AnyRegistry, AnyResolver, InstanceList, Lease, Registry as _, Resolver as _, ServiceInstance,
    ServiceName, Several,
};

use crate::cli::{self, Services};
use crate::exit::{ExitCode, UsageError};
use crate::open;
use crate::output::{Output, table};
use crate::stop;

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
    let mut watches = Vec::new();
    for name in names(&resolver, name).await? {
        let watch = resolver.watch(&name).await?;
        watches.push(watch.map(move |list| (name.clone(), list)).boxed());
    }
    if watches.is_empty() {
        output.warn("no service is registered");
        return Ok(ExitCode::Done);
    }
    let mut lists: SelectAll<_> = select_all(watches);
    let mut stop = std::pin::pin!(stop::asked());
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        let next = tokio::select! {
            next = lists.next() => next,
            () = &mut stop => None,
        };
        let Some((name, list)) = next else { break };
        match list {
            Ok(list) => {
                show_list(&name, &list, output)?;
                if let Some(several) = &several {
                    tell_apart(several, &[name], output);
                }
            }
            Err(error) => output.warn(format!("{name}: {}", error.report())),
        }
        shown += 1;
    }
    Ok(ExitCode::Done)
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
    let wrong = || UsageError(format!("`{}` is no address; write HOST:PORT", args.address));
    let (host, port) = args.address.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong().into());
    }
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
