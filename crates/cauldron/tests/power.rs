//! A machine that loses its power keeps names of files whose content was not waited for. What is left opens, and `doctor` mends it.
//! Needs root, as the engine does.

mod busybox;
mod home;

use home::Home;
use std::fs;

#[test]
fn files_that_lost_their_content_stop_nobody() {
    let home = Home::new("power", |_| {});
    home.ok(&["tag", "busybox", "other"]);
    home.ok(&["create", "--name", "one", "--network", "none", "-v", "/anonymous", "busybox", "true"]);
    let id = home.ok(&["inspect", "-f", "{{.Id}}", "one"]);
    let volume = home.ok(&["volume", "ls", "-q"]);
    let tag = home.0.join("root/tags/docker.io+library+other:latest");
    for lost in
        [tag, home.0.join("root/names/one"), home.0.join("root/volumes").join(&volume).join("volume.json")]
    {
        fs::metadata(&lost).unwrap();
        fs::write(lost, "").unwrap();
    }
    assert_eq!(home.ok(&["images", "--format", "{{.Repository}}"]), "busybox");
    assert_eq!(home.ok(&["volume", "ls", "-q"]), volume);
    assert_eq!(home.ok(&["ps", "-aq", "--no-trunc"]), id);
    home.ok(&["start", "-a", &id]);
    home.ok(&["run", "--rm", "--network", "none", "busybox", "true"]);
    // The names are free.
    home.ok(&["create", "--name", "one", "--network", "none", "busybox", "true"]);
    home.ok(&["tag", "busybox", "other"]);
    assert_eq!(home.run(&["doctor", "--fix"]).code, 0);
    assert_eq!(home.run(&["doctor", "--verify"]).code, 0);
    home.ok(&["rm", "-v", &id]);
    assert_eq!(home.ok(&["volume", "ls", "-q"]), "");
}
