//! What people dictate: messages and notes, as small grammars. Copied word for word into the call.

use std::sync::LazyLock;

use super::Split;
use super::grammar::Template;

pub(crate) struct Grammar {
    train: LazyLock<Vec<Template>>,
    held_out: LazyLock<Vec<Template>>,
}

impl Grammar {
    pub(crate) fn of(&self, split: Split) -> &[Template] {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }
}

macro_rules! grammar {
    ($($(#[$doc:meta])* $name:ident { train: [$($train:literal),* $(,)?], held_out: [$($held:literal),* $(,)?] })*) => {
        $($(#[$doc])* pub(crate) static $name: Grammar = Grammar {
            train: LazyLock::new(|| vec![$(Template::parse($train)),*]),
            held_out: LazyLock::new(|| vec![$(Template::parse($held)),*]),
        };)*
    };
}

grammar! {
    /// Statements: may follow "that".
    STATEMENTS {
        train: [
            "(i'm|i am|we are|we're) <state>",
            "i'll be <state> (soon|in <small> minutes|tonight|at <clock>|in a moment)",
            "(i'm|we're) running <small> minutes late",
            "(i|we) (forgot|lost|found|bought|need) <thing>",
            "(i|we) will (bring|buy|get|pick up|need) <thing>",
            "the (meeting|party|game|lesson|show) (starts|is|ends) at <clock>",
            "the (meeting|party|game|lesson|show) (is canceled|was great|is tomorrow|got moved)",
            "(dinner|lunch|breakfast|the food) is ready",
            "i (love|miss) (you|<thing>)",
            "we don't have <thing> (yet|at home|)",
            "i put <thing> on the (table|chair|shelf|floor)",
            "(i am|we are) (going to|leaving|still at|waiting at) <place>",
            "(i|we) can't (come|make it|talk) (today|tonight|now|this week)",
            "<person> (is coming|called|says hi|is <state>|needs <thing>)",
            "(it|the train|the bus|the flight) is <small> minutes late",
            "the (code|password) is <code>",
            "the <noun> is (broken|ready|gone|here)",
            "everything is (fine|okay|good)",
            "we should (talk|meet|leave) (about <thing>|at <clock>|soon)",
            "i just (left|got to|passed) <place>",
            "(i've|i have) to <task>",
            "<person> will (bring|get|buy) <thing>",
            "they (have|want|sold) <thing>",
        ],
        held_out: [
            "<thing> must be (gone|ready|missing)",
            "i (left|forgot) <thing> at <place>",
            "(we|i) should buy <thing> (soon|tonight|)",
            "<person> and i are <state>",
            "the (lesson|bus|party) was moved to <clock>",
            "we need <thing> for (dinner|the party|tomorrow)",
            "i'm still <state>",
            "i will call you when i'm <state>",
            "<person> has <thing>",
            "it takes <small> minutes to get to <place>",
            "you forgot <thing> (again|at home|)",
            "i'll meet you at <place> at <clock>",
        ]
    }
    /// Everything else: greetings, questions, requests.
    MESSAGES {
        train: [
            "happy birthday (<person>|)",
            "good (morning|night|luck)",
            "see you (soon|tomorrow|at <clock>|at <place>|there)",
            "thank you for (<thing>|the help|everything)",
            "(call|text) me (back|later|when you are <state>)",
            "(bring|buy|get) <thing> (and <thing>|on the way|)",
            "congratulations on the (job|baby|house|exam)",
            "(where|how) are you",
            "(what is the plan|when do we eat|when do we leave)",
            "can you (bring|buy|get|find) <thing>",
            "do (you|we) (have|need) <thing>",
            "let's meet at <place> (at <clock>|)",
            "is <person> (coming|<state>)",
            "sorry about <thing>",
            "where did you (put|buy|get) <thing>",
        ],
        held_out: [
            "wait for me at <place>",
            "did you (find|bring|get) <thing>",
            "have you seen <thing>",
            "keep <thing> for me",
            "get <thing> from <place>",
            "are you still <state>",
            "meet me at <place> at <clock>",
        ]
    }
    /// Right after a name, with nothing between: begins like a sentence, so that the name's end can be told.
    OPEN_STATEMENTS {
        train: [
            "(i'm|i am|we are|we're) <state>",
            "(i'm|we're) running <small> minutes late",
            "i'll be <state> (soon|in <small> minutes|at <clock>)",
            "i (love|miss) you",
            "we don't have <thing>",
            "i (need|forgot|found|bought) <thing>",
            "we will (bring|buy|need) <thing>",
            "i can't (come|make it|talk) (today|tonight|now)",
            "we are (leaving|waiting at) <place>",
            "i put <thing> on the (table|chair|shelf|floor)",
            "the (meeting|party|game|show) (starts|is|ends) at <clock>",
            "the (train|bus|flight) is <small> minutes late",
            "the <noun> is (broken|ready|gone|here)",
        ],
        held_out: [
            "i'm still <state>",
            "we should buy <thing>",
            "i left <thing> at <place>",
            "the party was moved to <clock>",
            "i will call you when i'm <state>",
            "we need <thing> for dinner",
        ]
    }
    /// Notes that may follow "that".
    FACTS {
        train: [
            "(my|the) (locker|seat|room|gate) (number|) is <small>",
            "the (wifi|door|bike) (code|password) is <code>",
            "<person> (likes|wants|has|needs|owes me) <thing>",
            "i (left|parked|hid|saw) <thing> at <place>",
            "i paid <small> dollars for <thing>",
            "<person> is coming at <clock>",
            "(i|we) need <thing> (by|before|after) (lunch|dinner|the weekend)",
            "(i|we) have to <task>",
            "<thing> cost <small> dollars",
            "the <noun> is <small> years old",
        ],
        held_out: [
            "<person> borrowed <thing>",
            "<person> wants <small> dollars",
            "the (room|door) code is <code>",
            "i need to <task> (before|after) (lunch|dinner)",
            "<thing> must be at <place> by <clock>",
            "<person> and i saw <thing> at <place>",
        ]
    }
    /// Notes that stand alone.
    NOTES {
        train: [
            "<task>",
            "<task> and <task>",
            "(buy|get|order|return|find|bring) <thing> (and <thing>|for <person>|)",
            "(idea|ideas) for <person>",
            "parked (at|near) <place>",
            "ask <person> about <thing>",
            "try the <noun>",
            "meet <person> at <place>",
            "dream about (a|the) <noun>",
            "<task> (today|tomorrow|at <clock>)",
        ],
        held_out: [
            "<task> (before|after) (lunch|dinner)",
            "bring <thing> to <place>",
            "keep <thing> for <person>",
            "talk to <person> about <thing>",
            "look for <thing> near <place>",
            "<task> and ask <person> about <thing>",
        ]
    }
}
