//! Checks by datagrams: `udp` and `dns`.

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::A;
use tokio::net::UdpSocket;

use super::*;

/// What a check of `json` says of a server that answers each datagram with what `answer` makes of it.
async fn exchanged(json: &str, answer: impl Fn(&[u8], u32) -> Vec<Vec<u8>>) -> Result<(), Failure> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = socket.local_addr().unwrap();
    let asker = Asker::new(&what(json), &Tools::new("nobody")).unwrap();
    let server = async {
        let mut datagram = [0; 2048];
        for count in 0.. {
            let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
            for one in answer(&datagram[..length], count) {
                socket.send_to(&one, from).await.unwrap();
            }
        }
    };
    tokio::select! {
        verdict = asker.ask(None, to, Instant::now() + TIMEOUT) => verdict,
        () = server => unreachable!(),
    }
}

#[tokio::test]
async fn any_answer_or_one_that_matches_is_healthy() {
    let echo = |datagram: &[u8], _| vec![datagram.to_vec()];
    assert_eq!(exchanged(r#"{"type": "udp"}"#, echo).await, Ok(()));
    assert_eq!(exchanged(r#"{"type": "udp", "send": "well?", "body": "^well"}"#, echo).await, Ok(()));
    assert_eq!(exchanged(r#"{"type": "udp", "send_hex": "ff00", "body": "(?-u)^\\xff\\x00$"}"#, echo).await, Ok(()));
    assert_eq!(exchanged(r#"{"type": "udp", "send": "ill", "body": "^well"}"#, echo).await, Err(Failure::Body));
}

#[tokio::test]
async fn datagram_that_is_lost_is_sent_again_and_silence_fails_unless_it_is_wanted() {
    let second = |datagram: &[u8], count| if count == 0 { Vec::new() } else { vec![datagram.to_vec()] };
    assert_eq!(exchanged(r#"{"type": "udp"}"#, second).await, Ok(()));
    assert_eq!(exchanged(r#"{"type": "udp"}"#, |_, _| Vec::new()).await, Err(Failure::Silent));
    assert_eq!(exchanged(r#"{"type": "udp", "answer": false}"#, |_, _| Vec::new()).await, Ok(()));
}

#[tokio::test]
async fn closed_port_fails_at_once_whether_an_answer_is_wanted_or_not() {
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for json in [r#"{"type": "udp"}"#, r#"{"type": "udp", "answer": false}"#, r#"{"type": "dns", "name": "a.example"}"#] {
        let asker = Asker::new(&what(json), &Tools::new("nobody")).unwrap();
        assert_eq!(asker.ask(None, closed, Instant::now() + TIMEOUT).await, Err(Failure::PortClosed(closed)), "{json}");
        assert!(!asker.reaches(closed, Instant::now() + TIMEOUT).await);
    }
}

#[tokio::test]
async fn a_real_server_that_says_nothing_is_not_taken_for_one_that_answers() {
    // As one whose kernel sends no more ICMP errors for a second.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let asker = Asker::new(&what(r#"{"type": "udp", "answer": false}"#), &Tools::new("nobody")).unwrap();
    let to = silent.local_addr().unwrap();
    assert_eq!(asker.ask(None, to, Instant::now() + TIMEOUT).await, Ok(()));
    assert!(!asker.reaches(to, Instant::now() + TIMEOUT).await);
}

/// A name server's answer to `question`, with this code and these addresses.
fn answered(question: &[u8], code: Rcode, addresses: &[[u8; 4]]) -> Vec<u8> {
    let question = Message::from_octets(question.to_vec()).unwrap();
    let name: Name<Vec<u8>> = "www.example.org".parse().unwrap();
    let mut answer = MessageBuilder::new_vec().start_answer(&question, code).unwrap();
    for address in addresses {
        answer.push((&name, 60, A::from_octets(address[0], address[1], address[2], address[3]))).unwrap();
    }
    answer.finish()
}

#[tokio::test]
async fn name_server_is_judged_by_code_and_data() {
    let found = |question: &[u8], _| vec![answered(question, Rcode::NOERROR, &[[192, 0, 2, 1], [192, 0, 2, 2]])];
    assert_eq!(exchanged(r#"{"type": "dns", "name": "www.example.org"}"#, found).await, Ok(()));
    assert_eq!(exchanged(r#"{"type": "dns", "name": "www.example.org", "expect": "192.0.2.2"}"#, found).await, Ok(()));
    assert_eq!(exchanged(r#"{"type": "dns", "name": "www.example.org", "expect": "192.0.2.3"}"#, found).await, Err(Failure::Body));
    let refused = |question: &[u8], _| vec![answered(question, Rcode::SERVFAIL, &[])];
    let wrong = Err(Failure::WrongAnswer("SERVFAIL".to_owned()));
    assert_eq!(exchanged(r#"{"type": "dns", "name": "www.example.org"}"#, refused).await, wrong);
    assert_eq!(exchanged(r#"{"type": "dns", "name": "www.example.org", "rcode": "servfail"}"#, refused).await, Ok(()));
}

#[tokio::test]
async fn answers_to_other_questions_and_garbage_are_no_answers() {
    let forged = |question: &[u8], _| {
        let mut other_id = answered(question, Rcode::NOERROR, &[[192, 0, 2, 1]]);
        other_id[0] ^= 0xff;
        let mut other_name = answered(question, Rcode::NOERROR, &[[192, 0, 2, 1]]);
        other_name[13] ^= 1;
        vec![vec![], vec![0xff; 3], vec![0xff; 512], other_id, other_name, question.to_vec()]
    };
    assert_eq!(exchanged(r#"{"type": "dns", "name": "www.example.org"}"#, forged).await, Err(Failure::Silent));
    let late = |question: &[u8], count| {
        let mut all = forged(question, count);
        all.push(answered(question, Rcode::NOERROR, &[]));
        all
    };
    assert_eq!(exchanged(r#"{"type": "dns", "name": "www.example.org"}"#, late).await, Ok(()));
}

#[tokio::test]
async fn answer_that_points_at_itself_for_ever_ends() {
    let looping = |question: &[u8], _| {
        let mut answer = answered(question, Rcode::NOERROR, &[[192, 0, 2, 1]]);
        let record = question.len();
        // The record's name is a pointer to itself.
        answer.truncate(record);
        answer.extend([0xc0, u8::try_from(record).unwrap(), 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        vec![answer]
    };
    let verdict = exchanged(r#"{"type": "dns", "name": "www.example.org", "expect": "192.0.2.9"}"#, looping).await;
    assert!(matches!(verdict, Err(Failure::Nonsense("DNS", _) | Failure::Body)), "{verdict:?}");
}
