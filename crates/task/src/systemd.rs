//! Schedules as systemd's timers, for those who prefer them. Pure: text out of definitions.

use crate::run::Task;
use crate::schedule::{Calendar, Missed};

/// A unit's file name and its text.
pub type Unit = (String, String);

/// The service and the timer of a task; `None` without a schedule. `command` runs cauldron with the right roots.
pub fn units(task: &Task, command: &[String]) -> Option<[Unit; 2]> {
    let schedule = task.definition.schedule.as_ref()?;
    let name = format!("cauldron-task-{}", task.key.to_string().replace(['/', '.'], "-"));
    let mut words = command.to_vec();
    words.extend(["task", "run", "--quiet", "--cause", "systemd"].map(str::to_owned));
    words.push(task.key.to_string());
    let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    let service = format!(
        "[Unit]\nDescription=Cauldron task {}\nDocumentation=man:cauldron-task-run(1)\n\n[Service]\nType=oneshot\nExecStart={}\n",
        task.key,
        line.join(" ")
    );
    let mut timer =
        format!("[Unit]\nDescription=Schedule of Cauldron task {}: {}\n\n[Timer]\n", task.key, schedule.text);
    match schedule.calendar() {
        Calendar::Every(every) => {
            timer.push_str(&format!("OnActiveSec={0}s\nOnUnitActiveSec={0}s\n", every.as_secs_f64()));
        }
        Calendar::At(lines) => {
            for line in lines {
                timer.push_str(&format!("OnCalendar={line}\n"));
            }
            timer.push_str(&format!("Persistent={}\n", task.definition.policy.missed == Missed::Once));
        }
    }
    timer.push_str("AccuracySec=1s\n");
    if !schedule.jitter.is_zero() {
        timer.push_str(&format!(
            "RandomizedDelaySec={}s\nFixedRandomDelay=true\n",
            schedule.jitter.as_secs_f64()
        ));
    }
    timer.push_str("\n[Install]\nWantedBy=timers.target\n");
    Some([(format!("{name}.service"), service), (format!("{name}.timer"), timer)])
}

/// A word of a command line in a unit: `%` and `$` stand for themselves.
fn quoted(word: &str) -> String {
    let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-:=@,+".contains(&byte));
    if plain && !word.is_empty() {
        return word.to_owned();
    }
    let escaped = word
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Definition, Key};
    use serde_json::json;

    fn timer(schedule: &str) -> String {
        let task =
            json!({"schedule": schedule, "timezone": "Europe/Berlin", "jitter": "5m", "missed": "skip"});
        let key = Key { project: "shop".to_owned(), task: "backup".to_owned() };
        let task = Task { key, definition: Definition::parse(&task).unwrap(), ..Task::default() };
        let [service, timer] =
            units(&task, &["/usr/bin/cauldron".to_owned(), "--root".to_owned(), "/a b%".to_owned()]).unwrap();
        assert_eq!(
            (service.0.as_str(), timer.0.as_str()),
            ("cauldron-task-shop-backup.service", "cauldron-task-shop-backup.timer")
        );
        assert!(service.1.contains(
            "ExecStart=/usr/bin/cauldron --root \"/a b%%\" task run --quiet --cause systemd shop/backup\n"
        ));
        timer.1
    }

    #[test]
    fn calendars() {
        for (cron, want) in [
            ("0 3 * * *", "OnCalendar=*-*-* 03:00:00 Europe/Berlin\n"),
            ("*/15 * * * *", "OnCalendar=*-*-* *:00,15,30,45:00 Europe/Berlin\n"),
            ("30 8-10 * * mon-fri", "OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 08,09,10:30:00 Europe/Berlin\n"),
            (
                "0 0 13 * fri",
                "OnCalendar=*-*-13 00:00:00 Europe/Berlin\nOnCalendar=Fri *-*-* 00:00:00 Europe/Berlin\n",
            ),
            ("0 0 L 2,3 *", "OnCalendar=*-02,03~01 00:00:00 Europe/Berlin\n"),
            ("0 0 * * mon#2", "OnCalendar=Mon *-*-8..14 00:00:00 Europe/Berlin\n"),
            ("0 0 * * 5L", "OnCalendar=Fri *-*~1..7 00:00:00 Europe/Berlin\n"),
            ("@every 90s", "OnActiveSec=90s\nOnUnitActiveSec=90s\n"),
        ] {
            let text = timer(cron);
            assert!(text.contains(want), "{cron}: {text}");
        }
        assert!(timer("@daily").contains("Persistent=false\nAccuracySec=1s\nRandomizedDelaySec=300s\n"));
    }
}
