package prmanager

// Reason is a box of flowchart.md. A decision answers with the boxes it passed: they are its log line, metric label,
// journal entry and the "why" of every page. A test holds the boxes drawn and the constants here to each other.
type Reason string

// The boxes, in the order of the flowchart.
const (
	FirstSight  Reason = "First_Sight"
	Adopted     Reason = "Adopted"
	NotAdopted  Reason = "Not_Adopted"
	HeadChanged Reason = "Head_Changed"

	PROpened       Reason = "PR_Opened"
	ChangesPushed  Reason = "Changes_Pushed"
	LatePush       Reason = "Late_Push" // a push away from this head that was undone by the time we heard of it
	BaseMoved      Reason = "Base_Changed"
	DraftReady     Reason = "Draft_Ready"
	DraftAgain     Reason = "Draft_Again"
	PRClosed       Reason = "PR_Closed"
	PRMerged       Reason = "PR_Merged"
	PRReopened     Reason = "PR_Reopened"
	Reconciled     Reason = "Reconcile"
	NothingHandled Reason = "Unhandled"
	DryRunOver     Reason = "Dry_Run_Over"

	IsAuto          Reason = "Is_Auto"
	UntrustedAuthor Reason = "Untrusted_Author"
	UntrustedPusher Reason = "Untrusted_Pusher"
	UnknownPusher   Reason = "Unknown_Pusher"
	IsDraft         Reason = "Is_Draft"
	IsPaused        Reason = "Is_Paused"
	Carried         Reason = "Carried"

	LabelAdded        Reason = "Label_Added"
	LabelRemoved      Reason = "Label_Removed"
	LabelOurs         Reason = "Label_Ours"
	LabelOnClosed     Reason = "Label_On_Closed"
	LabellerUntrusted Reason = "Labeller_Untrusted"
	StrictRefused     Reason = "Strict"
	Held              Reason = "Held"
	AlreadyGranted    Reason = "Already_Granted"
	CliApproved       Reason = "Approve_Cli"
	CliRevoked        Reason = "Revoke_Cli"
	ApproveClicked    Reason = "Approve_Clicked"
	ApproveComment    Reason = "Approve_Comment"
	ApproverUntrusted Reason = "Approver_Untrusted"
	StaleApproval     Reason = "Stale_Approval"
	AnswerCommand     Reason = "Answer_Command" // what to paste, for a command without SHA
	CancelComment     Reason = "Cancel_Comment"
	CancelRefused     Reason = "Cancel_Refused"
	RetestAsked       Reason = "Retest"
	RetestRefused     Reason = "Retest_Refused"
	Rechecked         Reason = "Recheck"

	Granted        Reason = "Grant"
	Revoked        Reason = "Revoke"
	RunTriggered   Reason = "Trigger"
	CheckShown     Reason = "Check_Shown"
	CheckRefused   Reason = "Check_Refused"
	TriggerTaken   Reason = "Trigger_Accepted"
	TriggerRefused Reason = "Trigger_Refused"
	AlreadyRun     Reason = "Already_Triggered"
	RunReport      Reason = "Run_Reported"
	RunStale       Reason = "Run_Not_Current"
	NativeReport   Reason = "Native_Run"
	RunHeld        Reason = "Run_Held" // a native run is held back although its commit is approved
	CancelRuns     Reason = "Cancel_Runs"

	GroupAsked Reason = "Group_Asked"
	GroupGone  Reason = "Group_Gone"

	GateOpen    Reason = "Gate_Open"
	GateShut    Reason = "Gate_Shut"
	GateLeft    Reason = "Gate_Left"
	AddLabel    Reason = "Add_Label"
	RemoveLabel Reason = "Remove_Label"
	LabelFlaps  Reason = "Label_Flaps"

	APILags Reason = "API_Lags"
	Unsure  Reason = "Unsure"
	GaveUp  Reason = "Gave_Up_Asking"
)
