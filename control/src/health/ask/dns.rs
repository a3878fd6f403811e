//! Questions to name servers (RFC 1035), over UDP.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name, ParsedName};
use domain::rdata::AllRecordData;
use tokio::time::Instant;

use super::udp;
use crate::health::check;
use crate::health::connect::Failure;

/// A name and a type of record.
type Asked = (Name<Vec<u8>>, Rtype);

/// What is asked for. Why it cannot be, and of which field.
pub(crate) fn question(name: &str, record: &str) -> Result<Asked, (&'static str, String)> {
    let name = Name::<Vec<u8>>::from_str(name).map_err(|why| ("name", format!("name is '{name}', no name of the DNS: {why}")))?;
    let record = Rtype::from_str(record)
        .map_err(|_| ("record", format!("record is '{record}': expected a type of record such as A, AAAA, SOA or TXT")))?;
    Ok((name, record))
}

/// The response code of this name.
pub(crate) fn rcode(text: &str) -> Result<Rcode, String> {
    let all = "NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, YXDOMAIN, YXRRSET, NXRRSET, NOTAUTH, NOTZONE";
    Rcode::from_str(&text.to_ascii_uppercase()).map_err(|()| format!("rcode is '{text}': allowed are {all}"))
}

/// A question with what its answer must be.
pub(in crate::health) struct Lookup {
    name: Name<Vec<u8>>,
    record: Rtype,
    rcode: Rcode,
    expect: Option<String>,
    ids: RandomState,
}

impl Lookup {
    pub(super) fn new(lookup: &check::Lookup) -> Result<Self, String> {
        let (name, record) = question(&lookup.name, &lookup.record).map_err(|(_, why)| why)?;
        Ok(Self { name, record, rcode: rcode(&lookup.rcode)?, expect: lookup.expect.clone(), ids: RandomState::new() })
    }

    pub(super) async fn ask(&self, from: Option<IpAddr>, to: SocketAddr, until: Instant) -> Result<(), Failure> {
        let asked = self.message(until)?;
        udp::exchange(from, to, asked.as_slice(), |answer| self.judge(&asked, answer), until).await
    }

    /// The question, with an id that nobody can know.
    fn message(&self, until: Instant) -> Result<Message<Vec<u8>>, Failure> {
        let id = u16::try_from(self.ids.hash_one(until) & 0xffff).unwrap_or_default();
        let mut message = MessageBuilder::new_vec();
        message.header_mut().set_id(id);
        message.header_mut().set_rd(true);
        let mut message = message.question();
        message.push((&self.name, self.record)).map_err(|why| Failure::Unable(format!("the question cannot be written: {why}")))?;
        Ok(message.into_message())
    }

    /// `None` of what does not answer the question: another id, another question, no message at all.
    fn judge(&self, asked: &Message<Vec<u8>>, answer: &[u8]) -> Option<Result<(), Failure>> {
        let answer = Message::from_octets(answer).ok().filter(|answer| answer.is_answer(asked))?;
        let rcode = answer.header().rcode();
        if rcode != self.rcode {
            return Some(Err(Failure::WrongAnswer(rcode.to_string())));
        }
        let Some(expect) = &self.expect else { return Some(Ok(())) };
        let nonsense = |why: domain::base::wire::ParseError| Failure::Nonsense("DNS", why.to_string());
        let found = || {
            let records = answer.answer().map_err(nonsense)?.limit_to::<AllRecordData<_, ParsedName<_>>>();
            for record in records {
                let record = record.map_err(nonsense)?;
                if record.rtype() == self.record && record.data().to_string().eq_ignore_ascii_case(expect) {
                    return Ok(());
                }
            }
            Err(Failure::Body)
        };
        Some(found())
    }
}
