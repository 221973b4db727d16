//! On files that stand for the kernel's; the kernel's own are in `tests/dataplane`.

use super::*;

fn ports(text: &str) -> PortSet {
    text.parse().unwrap()
}

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new(local: &str, reserved: &str) -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(this.folder.path().join("ip_local_port_range"), local).unwrap();
        this.set(reserved);
        this
    }

    fn settings(&self) -> Settings {
        Settings { folder: self.folder.path().to_owned() }
    }

    fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn reservation(&self, ranges: &[(u16, u16)]) -> Reservation {
        let range = |(first, last): &(u16, u16)| PortRange::new(*first, *last).unwrap();
        Reservation {
            ranges: ranges.iter().map(range).collect(),
            settings: self.settings(),
            run_dir: self.run_dir(),
        }
    }

    fn set(&self, reserved: &str) {
        fs::write(self.settings().reserved(), reserved).unwrap();
    }

    fn reserved(&self) -> String {
        fs::read_to_string(self.settings().reserved()).unwrap().trim().to_owned()
    }

    fn restore(&self) -> Option<String> {
        restore_in(&self.run_dir(), &self.settings()).unwrap()
    }
}

#[test]
fn what_is_missing_is_added_and_only_that_is_ours() {
    for (wanted, reserved, added, ours, all) in [
        ("", "80", "", "", None),
        ("10-20", "", "", "10-20", Some("10-20")),
        ("10-20", "15-30", "", "10-14", Some("10-30")),
        ("10-20", "5-30", "", "", None),
        // Ours from before: kept, with what has come.
        ("10-20", "10-15", "10-15", "10-20", Some("10-20")),
        ("10-20", "10-20", "10-15", "10-15", None),
        // Somebody overwrote the list: ours is added anew, and is ours no more where it is not wanted.
        ("10-20", "80", "8-20", "10-20", Some("10-20,80")),
        // Another range now: flows have the old one yet.
        ("30-40", "10-20", "10-20", "10-20,30-40", Some("10-20,30-40")),
    ] {
        let step = plan(&ports(wanted), &ports(reserved), &ports(added));
        let expected = Step { added: ports(ours), reserved: all.map(ports) };
        assert_eq!(step, expected, "{wanted} of {reserved}, {added} ours");
    }
}

#[test]
fn nothing_is_written_where_nothing_overlaps() {
    let world = World::new("32768\t60999\n", "8080\n");
    world.reservation(&[(10_000, 29_999), (30_000, 32_767)]).keep().unwrap();
    assert_eq!(world.reserved(), "8080");
    assert!(!world.run_dir().exists());
    assert_eq!(world.restore(), None);
}

#[test]
fn what_was_there_comes_back() {
    let world = World::new("20000 60999", "8080,25000-25010");
    let reservation = world.reservation(&[(10_000, 29_999), (30_000, 32_767)]);
    reservation.keep().unwrap();
    assert_eq!(world.reserved(), "8080,20000-32767");
    // Somebody adds one meanwhile, and a new agent keeps it.
    world.set("8080,9000,20000-32767");
    world.reservation(&[(10_000, 29_999), (30_000, 32_767)]).keep().unwrap();
    assert!(world.restore().unwrap().contains("20000-24999,25011-32767"));
    assert_eq!(world.reserved(), "8080,9000,25000-25010");
    assert!(!world.run_dir().join(FILE).exists());
    assert_eq!(world.restore(), None);
}

#[test]
fn what_is_overwritten_is_added_again() {
    let world = World::new("1024 65535", "");
    let reservation = world.reservation(&[(10_000, 10_099)]);
    reservation.keep().unwrap();
    world.set("80");
    reservation.keep().unwrap();
    assert_eq!(world.reserved(), "80,10000-10099");
    world.restore();
    assert_eq!(world.reserved(), "80");
}

#[test]
fn a_note_of_another_start_or_namespace_restores_nothing() {
    let world = World::new("1024 65535", "10000-10099");
    let note = Note::here(ports("10000-10099")).unwrap();
    for strange in
        [Note { boot: "another".to_owned(), ..note.clone() }, Note { namespace: 1, ..note.clone() }]
    {
        strange.save(&world.run_dir()).unwrap();
        assert!(world.restore().unwrap().starts_with("removed "));
        assert_eq!(world.reserved(), "10000-10099");
    }
    note.save(&world.run_dir()).unwrap();
    assert!(world.restore().unwrap().contains("10000-10099"));
    assert_eq!(world.reserved(), "");
}

/// As after a kill between the note and the setting.
#[test]
fn a_note_without_a_setting_does_no_harm() {
    let world = World::new("1024 65535", "80");
    Note::here(ports("10000-10099")).unwrap().save(&world.run_dir()).unwrap();
    assert!(world.restore().unwrap().starts_with("removed "));
    assert_eq!(world.reserved(), "80");
}

#[test]
fn settings_that_are_hidden_are_left_alone_and_broken_ones_are_named() {
    let world = World::new("1024 65535", "80");
    let reservation = world.reservation(&[(10_000, 10_099)]);
    let folder = world.folder.path().join("none");
    let hidden = Reservation { settings: Settings { folder }, ..reservation.clone() };
    hidden.keep().unwrap();
    world.set("80;81");
    let error = format!("{:#}", reservation.keep().unwrap_err());
    assert!(error.contains("ip_local_reserved_ports") && error.contains("80;81"), "{error}");
    assert!(!world.run_dir().exists());
}

#[test]
fn a_note_that_is_broken_is_named() {
    let world = World::new("1024 65535", "80");
    fs::create_dir(world.run_dir()).unwrap();
    fs::write(world.run_dir().join(FILE), "{").unwrap();
    let error = format!("{:#}", world.reservation(&[(10_000, 10_099)]).keep().unwrap_err());
    assert!(error.contains(FILE) && error.contains("remove it"), "{error}");
}
