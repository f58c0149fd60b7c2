//! Which log lines are written? `/logging`.

use lateen_telemetry::admin::{Answer, Request, StatusCode};
use lateen_telemetry::log::Levels;

use super::Source;

const USAGE: &str = "usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
                     usage: /logging?level=<level> (change all levels)\n\
                     levels: trace debug info warning error critical off \n";

pub(super) fn answer(source: &Source, request: &Request) -> Answer {
    let Some(log) = source.log() else {
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE, "this process's log has fixed levels\n");
    };
    let asked = match (request.query.get("level"), request.query.get("paths")) {
        (Some(level), None) if !level.is_empty() => Some(rust_level(level).map(str::to_owned)),
        (None, Some(paths)) if !paths.is_empty() => Some(directives(&log.levels(), paths)),
        (None | Some(""), None | Some(""))
            if request.query.iter().all(|(name, _)| matches!(name, "level" | "paths")) =>
        {
            None
        }
        _ => Some(None),
    };
    let changed = match asked {
        None => true,
        Some(None) => false,
        Some(Some(levels)) => levels.parse::<Levels>().is_ok_and(|levels| log.set_levels(&levels).is_ok()),
    };
    let mut active = String::from("active loggers:\n");
    let levels = log.levels();
    for directive in levels.split(',') {
        let (target, level) = directive.split_once('=').unwrap_or(("lateen", directive));
        active.push_str(&format!("  {target}: {level}\n"));
    }
    if changed {
        Answer::text(active)
    } else {
        Answer::error(StatusCode::BAD_REQUEST, format!("error: unknown logger level\n\n{USAGE}{active}"))
    }
}

/// The present levels with some targets changed: `lateen_proxy:debug,hyper:off`.
fn directives(present: &str, paths: &str) -> Option<String> {
    let changes: Option<Vec<(&str, &str)>> = paths
        .split(',')
        .map(|change| {
            let (target, level) = change.rsplit_once(':')?;
            Some((target, rust_level(level)?)).filter(|(target, _)| !target.is_empty())
        })
        .collect();
    let changes = changes?;
    let kept = present.split(',').filter(|directive| {
        let target = directive.split_once('=').map(|(target, _)| target);
        !changes.iter().any(|(changed, _)| Some(*changed) == target)
    });
    let changed = changes.iter().map(|(target, level)| format!("{target}={level}"));
    Some(kept.map(str::to_owned).chain(changed).collect::<Vec<_>>().join(","))
}

/// Envoy's name of a level as this program's.
fn rust_level(level: &str) -> Option<&'static str> {
    match level {
        "trace" => Some("trace"),
        "debug" => Some("debug"),
        "info" => Some("info"),
        "warning" | "warn" => Some("warn"),
        "error" | "critical" => Some("error"),
        "off" => Some("off"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::directives;

    #[test]
    fn changed_targets_replace_their_old_levels() {
        assert_eq!(directives("info,hyper=off", "hyper:debug,a::b:warning").unwrap(), "info,hyper=debug,a::b=warn");
        assert_eq!(directives("info", "hyper:loud"), None);
        assert_eq!(directives("info", "hyper"), None);
        assert_eq!(directives("info", ":debug"), None);
    }
}
