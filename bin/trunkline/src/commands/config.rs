//! `trunkline config`

use std::path::Path;

use trunkline::{ConfigLoader, config};

use crate::cli::{Config, ConfigFile};
use crate::exit::ExitCode;
use crate::output::{Output, table};

pub(crate) fn run(command: Config, output: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Config::Check { file } => check(file.as_deref(), output),
        Config::Show(ConfigFile { config }) => show(config.as_deref(), output),
        Config::Schema => {
            output.json_document(&config::schema())?;
            Ok(ExitCode::Done)
        }
    }
}

/// Every source in its order; a file that is named is the base file.
pub(super) fn loader(file: Option<&Path>) -> ConfigLoader {
    match file {
        Some(file) => ConfigLoader::new().with_file(file),
        None => ConfigLoader::new(),
    }
}

fn check(file: Option<&Path>, output: &Output) -> anyhow::Result<ExitCode> {
    let loader = match file {
        Some(_) => loader(file).only_file(),
        None => loader(None),
    };
    let (_, found) = loader.check();
    let code = if found.has_errors() {
        ExitCode::Usage
    } else {
        ExitCode::Done
    };
    output.result(&found, |found| {
        if found.is_empty() {
            "no problems".to_owned()
        } else {
            found.to_string()
        }
    })?;
    Ok(code)
}

fn show(file: Option<&Path>, output: &Output) -> anyhow::Result<ExitCode> {
    let config = loader(file).load()?;
    for warning in config.warnings().iter() {
        output.warn(warning.to_string());
    }
    output.result(&config.settings(), |settings| {
        let rows = settings.iter().map(|setting| {
            let setting = setting.clone();
            [setting.path, setting.value, setting.origin]
        });
        table(["VALUE", "IS", "WRITTEN AT"], rows)
    })?;
    Ok(ExitCode::Done)
}
