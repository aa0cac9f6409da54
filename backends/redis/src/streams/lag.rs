//! How much waits for a group.

use redis::Value;
use trunkline_core::Result;
use trunkline_messaging::Subscribe;

use super::Core;
use super::place::Place;
use crate::script::Script;
use crate::wire;

/// What could be handed out by now and is in nobody's hands; `None` where Redis cannot know.
pub(super) async fn of(core: &Core, subscribe: &Subscribe) -> Result<Option<u64>> {
    core.check_open()?;
    let place = Place::of(subscribe, core.settings.prefix());
    if place.temporary {
        return Ok(None);
    }
    let asked = core.run(Script::Lag, |command| {
        command.arg(&place.stream).arg(&place.group);
    });
    match asked.await? {
        Value::Nil => Ok(None),
        number => Ok(u64::try_from(wire::number(&number)?).ok()),
    }
}
