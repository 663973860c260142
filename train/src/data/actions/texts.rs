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
    /// After "that", "saying" and the like.
    MESSAGES {
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
            "i am (going to|leaving|still at|waiting at) <place>",
            "(i|we) can't (come|make it|talk) (today|tonight|now|this week)",
            "<person> (is coming|called|says hi|is <state>|needs <thing>)",
            "happy birthday",
            "good (morning|night|luck)",
            "see you (soon|tomorrow|at <clock>|at <place>|there)",
            "thank you for (<thing>|the help|everything)",
            "(call|text) me (back|later|when you are <state>)",
            "(bring|buy|get) <thing> (and <thing>|on the way|)",
            "(it|the train|the bus|the flight) is <small> minutes late",
            "the (code|password) is <code>",
            "the <song> is (broken|ready|gone)",
            "(everything|all) is (fine|okay|good)",
            "congratulations on the (job|baby|house|exam)",
            "we should (talk|meet|leave) (about <thing>|at <clock>|soon)",
            "i just (left|got to|passed) <place>",
            "(where|how) are you",
            "(what|when) (is the plan|do we eat|do we leave)",
            "can you (bring|buy|get|find) <thing>",
            "do (you|we) (have|need) <thing>",
            "(i've|i have) (to|got to) <task>",
        ],
        held_out: [
            "<thing> must be (gone|ready|missing)",
            "i (left|put) <thing> at <place>",
            "(we|i) should buy <thing> (soon|tonight|)",
            "<person> and i are <state>",
            "the (lesson|bus|party) was moved to <clock>",
            "wait for me at <place>",
            "we need <thing> for (dinner|the party|tomorrow)",
            "i'm still <state>",
            "i will call you when i'm <state>",
            "did you (find|bring|get) <thing>",
            "<person> has <thing>",
            "it takes <small> minutes to get to <place>",
            "you forgot <thing> (again|at home|)",
            "have you seen <thing>",
            "i'll meet you at <place> at <clock>",
            "keep <thing> for me",
        ]
    }
    /// Right after a name, with nothing between: begins like a sentence, so that the name's end can be told.
    MESSAGES_WITHOUT_MARKER {
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
            "happy birthday",
            "the (meeting|party|game|show) (starts|is|ends) at <clock>",
            "the (train|bus|flight) is <small> minutes late",
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
    NOTES {
        train: [
            "<task>",
            "<task> and <task>",
            "(buy|get|order|return|find|bring) <thing> (and <thing>|for <person>|)",
            "the (wifi|door|bike) (code|password) is <code>",
            "(my|the) (locker|seat|room|gate) (number|) is <small>",
            "<person> (likes|wants|has|needs|owes me) <thing>",
            "left <thing> at <place>",
            "(idea|ideas) for <person>",
            "parked (at|near) <place>",
            "ask <person> about <thing>",
            "try the <song>",
            "<person> is coming at <clock>",
            "meet <person> at <place>",
            "(i|we) need <thing> (by|before|after) (lunch|dinner|the weekend)",
            "paid <small> dollars for <thing>",
            "dream about (a|the) <song>",
        ],
        held_out: [
            "<person> borrowed <thing>",
            "<task> (before|after) (lunch|dinner)",
            "(get|bring) <thing> to <place>",
            "keep <thing> for <person>",
            "the (room|door) code is <code>",
            "talk to <person> about <thing>",
            "<person> wants <small> dollars",
            "<task> at <clock>",
            "look for <thing> near <place>",
        ]
    }
}
