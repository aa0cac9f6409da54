//! `trunkline policy`

use super::config::loader;
use crate::cli::Policy;
use crate::exit::ExitCode;
use crate::output::{Output, table};

pub(crate) fn run(command: Policy, output: &Output) -> anyhow::Result<ExitCode> {
    let Policy::Explain {
        service,
        method,
        path,
        file,
    } = command;
    let config = loader(file.config.as_deref()).load()?;
    let endpoint = method
        .zip(path)
        .map(|(method, path)| format!("{} {path}", method.to_uppercase()));
    let explained = config.explain(&service, endpoint.as_deref())?;
    if let Some(note) = &explained.note {
        output.warn(note);
    }
    output.result(&explained, |explained| {
        let rows = explained.settings.iter().map(|setting| {
            let setting = setting.clone();
            [setting.path, setting.value, setting.layer, setting.origin]
        });
        table(["VALUE", "IS", "SET BY", "WRITTEN AT"], rows)
    })?;
    Ok(ExitCode::Done)
}
