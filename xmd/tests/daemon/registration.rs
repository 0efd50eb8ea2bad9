//! From the form to the first login, with the real pages, databases, mails and clients; and every way in which it must not work.

use std::time::Instant;

use xmmep::client::{Client, ClientOptions, ConnectError, Credentials, Event, Events, Password};
use xmmep::messages::chat::Tick;
use xmmep::name::UserName;

use crate::place::{PATIENCE, Place, Running, get, post};

pub(crate) const PASSWORD: &str = "plum tractor 9 sky";

/// Sends the form. Returns the status and where the answer leads.
pub(crate) fn register(running: &Running, name: &str, email: &str) -> (u16, String) {
    register_with(running, name, email, PASSWORD)
}

fn register_with(running: &Running, name: &str, email: &str, password: &str) -> (u16, String) {
    let fields = [("name", name), ("email", email), ("password", password), ("again", password)];
    let answer = post(running.web(), "/register", &fields, "");
    let location = answer.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_default();
    (status(&answer), location.to_owned())
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// All mails to an address, oldest first, once there are `count` of them.
fn mails(place: &Place, email: &str, count: usize) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let mut files: Vec<_> =
            place.data("mail").read_dir().into_iter().flatten().map(|file| file.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "eml"));
        files.sort();
        let mails = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
        let mails: Vec<String> = mails.filter(|mail| mail.contains(&format!("To: {email}\r\n"))).collect();
        if mails.len() >= count {
            return mails;
        }
        assert!(begun.elapsed() < PATIENCE, "{} of {count} mails to {email}", mails.len());
        std::thread::yield_now();
    }
}

fn token(mail: &str) -> String {
    let link =
        mail.lines().find(|line| line.contains("/activate?token=")).unwrap_or_else(|| panic!("no link in {mail}"));
    link.split("token=").nth(1).unwrap().trim().to_owned()
}

fn activate(running: &Running, token: &str) -> u16 {
    status(&post(running.web(), "/activate", &[("token", token)], ""))
}

/// Registers and activates somebody.
pub(crate) fn enrol(place: &Place, running: &Running, name: &str) -> String {
    let email = format!("{name}@example.org");
    assert_eq!(register(running, name, &email).0, 303);
    let token = token(&mails(place, &email, 1)[0]);
    assert_eq!(activate(running, &token), 200);
    token
}

pub(crate) async fn login(running: &Running, name: &str, password: &str) -> Result<(Client, Events), ConnectError> {
    tokio::time::timeout(PATIENCE, Client::connect(options(running, name, password))).await.unwrap()
}

pub(crate) fn options(running: &Running, name: &str, password: &str) -> ClientOptions {
    let address = running.told("Address for clients").parse().unwrap();
    let credentials = Credentials::Password(Password::new(password));
    ClientOptions::new(address, UserName::new(name).unwrap(), credentials)
}

#[tokio::test]
async fn registered_activated_restarted_and_logged_in_whatever_the_case_of_the_name() {
    let place = Place::new("");
    let running = place.start();
    enrol(&place, &running, "Ann");
    running.stop("-TERM");
    let running = place.start();
    let (client, _events) = login(&running, "aNN", PASSWORD).await.unwrap();
    assert_eq!(client.welcome().name.as_str(), "Ann");
    client.logout().await;
}

#[tokio::test]
async fn before_the_activation_only_the_right_password_is_told_that_it_is_missing() {
    let place = Place::new("");
    let running = place.start();
    assert_eq!(register(&running, "ann", "ann@example.org").0, 303);
    assert!(matches!(login(&running, "ann", PASSWORD).await, Err(ConnectError::NotActivated(_))));
    assert!(matches!(login(&running, "ann", "not the password").await, Err(ConnectError::WrongPassword)));
    assert!(matches!(login(&running, "nobody", PASSWORD).await, Err(ConnectError::WrongPassword)));
}

#[test]
fn a_taken_name_is_refused_in_any_case_width_and_normal_form() {
    let place = Place::new("[registration]\nreserved = [\"Admin\"]\n");
    let running = place.start();
    assert_eq!(register(&running, "Jörg", "joerg@example.org").0, 303);
    for name in ["Jörg", "JÖRG", "Jo\u{308}rg", "Ｊörg", "aDMIN"] {
        assert_eq!(register(&running, name, "other@example.org").0, 409, "{name:?}");
    }
}

#[test]
fn a_taken_address_looks_like_a_new_one_and_its_owner_is_told() {
    let place = Place::new("");
    let running = place.start();
    let (new, page) = register(&running, "ann", "ann@example.org");
    mails(&place, "ann@example.org", 1);
    let (taken, other_page) = register(&running, "eve", "ANN@example.org");
    assert_eq!((new, taken), (303, 303));
    assert_eq!(page.len(), other_page.len());
    let told = mails(&place, "ANN@example.org", 1);
    assert!(told[0].contains("Somebody has tried to register") && !told[0].contains("token="), "{}", told[0]);
    // Both pages say the same: which of the two addresses was known does not show.
    let bodies = [page, other_page].map(|page| {
        let answer = get(running.web(), &page);
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    });
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(register(&running, "eve", "eve@example.org").0, 303, "the name was not used up");
}

#[tokio::test]
async fn a_token_works_once_by_the_button_alone_and_not_for_anything_like_it() {
    let place = Place::new("");
    let running = place.start();
    assert_eq!(register(&running, "ann", "ann@example.org").0, 303);
    let good = token(&mails(&place, "ann@example.org", 1)[0]);
    for _ in 0..5 {
        assert_eq!(status(&get(running.web(), &format!("/activate?token={good}"))), 200);
    }
    assert!(
        matches!(login(&running, "ann", PASSWORD).await, Err(ConnectError::NotActivated(_))),
        "GET changed something"
    );
    let other = if good.starts_with('A') { "B" } else { "A" };
    assert_eq!(activate(&running, &format!("{other}{}", &good[1..])), 400);
    assert_eq!(activate(&running, &good), 200);
    login(&running, "ann", PASSWORD).await.unwrap().0.logout().await;
    // Used: it does nothing any more, and the account stays.
    let again = activate(&running, &good);
    login(&running, "ann", PASSWORD).await.unwrap().0.logout().await;
    assert_eq!(again, 400);
}

#[test]
fn links_begin_with_the_configured_address_whatever_the_request_says() {
    let place = Place::new("public_url = \"https://chat.example.org\"\n");
    let running = place.start();
    let fields = [("name", "ann"), ("email", "ann@example.org"), ("password", PASSWORD), ("again", PASSWORD)];
    let web = running.port_of_pages();
    let forged = "X-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n";
    let answer = crate::place::post_as(web, "evil.example", "/register", &fields, forged);
    assert_eq!(status(&answer), 303, "{answer}");
    let mail = &mails(&place, "ann@example.org", 1)[0];
    assert!(mail.contains("\r\nhttps://chat.example.org/activate?token=") && !mail.contains("evil"), "{mail}");
}

#[test]
fn a_double_click_registers_once_and_sends_one_mail() {
    let place = Place::new("");
    let running = place.start();
    let fields =
        [("nonce", "n"), ("name", "ann"), ("email", "ann@example.org"), ("password", PASSWORD), ("again", PASSWORD)];
    let clicks: Vec<_> = (0..2)
        .map(|_| {
            let web = running.web();
            std::thread::spawn(move || post(web, "/register", &fields, ""))
        })
        .collect();
    let answers: Vec<String> = clicks.into_iter().map(|click| click.join().unwrap()).collect();
    assert!(answers.iter().all(|answer| status(answer) == 303), "{answers:?}");
    let location = |answer: &str| answer.lines().find(|line| line.starts_with("location: ")).unwrap().to_owned();
    assert_eq!(location(&answers[0]), location(&answers[1]));
    let sent = mails(&place, "ann@example.org", 1);
    assert_eq!(activate(&running, &token(&sent[0])), 200);
    running.stop("-TERM");
    assert_eq!(mails(&place, "ann@example.org", 1).len(), 1);
}

#[test]
fn a_visitor_who_goes_away_in_the_middle_is_registered_all_the_same() {
    let place = Place::new("");
    let running = place.start();
    let fields = [("name", "ann"), ("email", "ann@example.org"), ("password", PASSWORD), ("again", PASSWORD)];
    crate::place::post_and_leave(running.web(), "/register", &fields);
    let token = token(&mails(&place, "ann@example.org", 1)[0]);
    assert_eq!(activate(&running, &token), 200);
}

#[test]
fn two_people_who_want_one_name_at_once_do_not_both_get_it() {
    let place = Place::new("");
    let running = place.start();
    let tries: Vec<_> = (0..4)
        .map(|number| {
            let web = running.web();
            std::thread::spawn(move || {
                let (name, email) = (if number % 2 == 0 { "ann" } else { "ANN" }, format!("ann{number}@example.org"));
                let fields = [("name", name), ("email", &email), ("password", PASSWORD), ("again", PASSWORD)];
                status(&post(web, "/register", &fields, ""))
            })
        })
        .collect();
    let mut statuses: Vec<u16> = tries.into_iter().map(|one| one.join().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 409, 409, 409]);
}

#[test]
fn a_registration_answered_before_a_kill_is_there_afterwards_with_its_mail() {
    let place = Place::new("");
    let running = place.start();
    assert_eq!(register(&running, "ann", "ann@example.org").0, 303);
    drop(running);
    let running = place.start();
    let token = token(&mails(&place, "ann@example.org", 1)[0]);
    assert_eq!(activate(&running, &token), 200);
    drop(running);
    let running = place.start();
    assert_eq!(register(&running, "ann", "other@example.org").0, 409);
}

/// The next event that `wanted` finds something in.
pub(crate) async fn wait<T>(events: &mut Events, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let look = async {
        loop {
            if let Some(found) = wanted(events.next().await.unwrap()) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap()
}

/// Ann asks Bob, who says yes.
pub(crate) async fn befriend(ann: &Client, (bob, bob_events): (&Client, &mut Events), greeting: &str) {
    let greeting = xmmep::bounded::Text::new(greeting).unwrap();
    ann.add_buddy(bob.welcome().name.clone(), greeting).await.unwrap();
    let asker = wait(bob_events, |event| match event {
        Event::Asks { card, .. } => Some(card.user),
        _ => None,
    });
    let asker = asker.await;
    bob.answer_buddy(asker, xmmep::messages::buddies::BuddyAnswer::ACCEPT_AND_ADD).await.unwrap();
}

#[tokio::test]
async fn no_password_token_key_or_message_is_in_the_log_even_at_debug() {
    const SECRET_TEXT: &str = "xyzzy-what-they-say-stays-between-them";
    let place = Place::new("[log]\nlevel = \"debug\"\n");
    let running = place.start();
    let mut secrets = vec![PASSWORD.to_owned(), SECRET_TEXT.to_owned(), "a wrong password".to_owned()];
    secrets.push(enrol(&place, &running, "ann"));
    secrets.push(enrol(&place, &running, "bob"));
    assert!(login(&running, "bob", "a wrong password").await.is_err());
    let (ann, mut ann_events) = login(&running, "ann", PASSWORD).await.unwrap();
    let (bob, mut bob_events) = login(&running, "bob", PASSWORD).await.unwrap();
    let bob_id = bob.welcome().user;
    befriend(&ann, (&bob, &mut bob_events), SECRET_TEXT).await;
    let online = ann.send_text(bob_id, SECRET_TEXT).await.unwrap();
    let tick_of = |id, wanted| {
        move |event| matches!(event, Event::Tick(tick) if tick.id == id && tick.tick == wanted).then_some(())
    };
    wait(&mut bob_events, |event| matches!(event, Event::Text(_)).then_some(())).await;
    bob_events.dealt_with().await;
    wait(&mut ann_events, tick_of(online, Tick::DELIVERED)).await;
    bob.logout().await;
    let offline = ann.send_text(bob_id, SECRET_TEXT).await.unwrap();
    wait(&mut ann_events, tick_of(offline, Tick::STORED)).await;
    ann.logout().await;
    let (_, _, log) = running.stop("-TERM");
    assert!(log.contains("DEBUG"), "nothing was logged at debug: {log}");
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
}
