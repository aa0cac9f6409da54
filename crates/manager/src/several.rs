//! Several registries at once, from one section of the configuration.

use std::collections::HashSet;

use trunkline_core::{Error, Result};
use trunkline_discovery::{OptionReader, ResolveRule, ServiceDiscoveryConfig, Several};

use crate::backends::{Backends, Close, discovery_problems};
use crate::config::kinds::{self, Area};

/// What the section says.
struct Settings {
    rule: ResolveRule,
    members: Vec<ServiceDiscoveryConfig>,
}

/// Whether the settings are sound; all that is wrong at once.
pub(crate) fn check(config: &ServiceDiscoveryConfig) -> Result<()> {
    read(config).map(drop)
}

/// Opens them all, and says how they end; connects nothing.
pub(crate) fn open(
    backends: &Backends,
    config: &ServiceDiscoveryConfig,
) -> Result<(Several, Close)> {
    let settings = read(config)?;
    let mut builder = Several::builder().rule(settings.rule);
    let mut ends: Vec<Close> = Vec::new();
    let mut names = HashSet::new();
    for (at, member) in settings.members.iter().enumerate() {
        let opened = backends.discovery(member)?;
        let mut name = member.display_url();
        if !names.insert(name.clone()) {
            name = format!("{name} ({})", at + 1);
        }
        builder = builder.member(name, opened.registry, opened.resolver);
        ends.push(opened.close);
    }
    let several = builder.build();
    let all = several.clone();
    let close: Close = Box::new(move || {
        // Its own questions end before those who are asked do.
        all.shutdown();
        for end in &ends {
            end();
        }
    });
    Ok((several, close))
}

/// Those that are named, as far as they can be read.
#[cfg(feature = "server")]
pub(crate) fn members(config: &ServiceDiscoveryConfig) -> Vec<ServiceDiscoveryConfig> {
    read(config).map(|it| it.members).unwrap_or_default()
}

fn read(config: &ServiceDiscoveryConfig) -> Result<Settings> {
    let mut options = OptionReader::new(config);
    let rules = [
        ("merged", ResolveRule::Merged),
        ("ordered", ResolveRule::Ordered),
    ];
    let rule = options.choice("resolve", &rules).unwrap_or_default();
    let urls = options
        .urls("registry")
        .or_else(|| options.urls("registries"));
    let urls = urls.unwrap_or_default();
    // Asked for as well, so that both names are known.
    if options.urls("registries").is_some() {
        options.problem("registries", "give `registries` or `registry`, not both");
    }
    if urls.len() < 2 {
        options.problem("registries", "must name at least two registries by URL");
    }
    let mut members = Vec::new();
    for (at, url) in urls.iter().enumerate() {
        match member(config, url) {
            Ok(member) => members.push(member),
            Err(error) => {
                for line in error.message().lines() {
                    let line = line.replace("service_discovery.", "");
                    options.problem(&format!("registries[{at}]"), line);
                }
            }
        }
    }
    options.finish()?;
    Ok(Settings { rule, members })
}

/// What a URL says, and what holds for all of them.
fn member(config: &ServiceDiscoveryConfig, url: &str) -> Result<ServiceDiscoveryConfig> {
    let mut member = ServiceDiscoveryConfig::from_url(url)?;
    if member.kind == "several" {
        return Err(Error::config("`several` cannot be one of several"));
    }
    kinds::require(Area::ServiceDiscovery, &member.kind)?;
    member.lease_ttl = config.lease_ttl;
    let problems = discovery_problems(&member);
    if !problems.is_empty() {
        return Err(Error::config(problems.join("\n")));
    }
    Ok(member)
}

#[cfg(test)]
mod tests {
    use trunkline_core::ErrorKind;
    use trunkline_discovery::{Resolver as _, ServiceName};

    use super::*;

    #[test]
    fn a_url_names_all_registries() {
        let url = "several://?registry=memory://&registry=memory://&resolve=ordered";
        let config = ServiceDiscoveryConfig::from_url(url).unwrap();
        let (several, _) = open(&Backends::default(), &config).unwrap();
        let names: Vec<String> = several.standing().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["memory://", "memory:// (2)"]);
    }

    #[tokio::test]
    async fn closing_ends_all_of_them_as_one() {
        let url = "several://?registry=memory://&registry=memory://";
        let config = ServiceDiscoveryConfig::from_url(url).unwrap();
        let (several, close) = open(&Backends::default(), &config).unwrap();
        let users = ServiceName::new("users").unwrap();
        several.resolve(&users).await.unwrap();
        let mut watch = several.watch(&users).await.unwrap();
        watch.next().await.unwrap().unwrap();
        close();
        let error = several.resolve(&users).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(watch.next().await.is_none());
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_without_passwords() {
        let mut config = ServiceDiscoveryConfig::new("several");
        let urls = [
            "several://",
            "no-url:secret",
            "zookeeper://user:secret@host",
        ];
        config
            .options
            .insert("registries".to_owned(), urls.to_vec().into());
        config.options.insert("resolve".to_owned(), "voted".into());
        let error = check(&config).unwrap_err();
        let text = error.message();
        for part in [
            "registries[0]: `several`",
            "registries[1]: ",
            "registries[2]: ",
            "options.resolve: ",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("secret"), "{text}");
        let one = ServiceDiscoveryConfig::from_url("several://?registry=memory://").unwrap();
        let text = check(&one).unwrap_err().to_string();
        assert!(text.contains("at least two"), "{text}");
    }
}
