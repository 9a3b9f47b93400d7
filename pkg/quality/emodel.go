package quality

import "math"

// Parameters are the inputs of the E-model, by their names in ITU-T G.107 Table 3.
type Parameters struct {
	// SLR and RLR are the send and receive loudness ratings, STMR the sidetone masking
	// rating, TELR the talker echo loudness rating, WEPL the weighted echo path loss, in dB.
	SLR, RLR, STMR, TELR, WEPL float64
	// Ds and Dr are the D-factors of the telephones of the sending and receiving side.
	Ds, Dr float64
	// T is the mean one-way delay of the echo path, Tr the round trip in the 4-wire loop,
	// Ta the absolute one-way delay, mouth to ear, in ms.
	T, Tr, Ta float64
	// QDU is the number of quantizing distortion units, 1-14.
	QDU float64
	// Ie is the equipment impairment factor, 0-40, Bpl the packet-loss robustness factor.
	Ie, Bpl float64
	// Ppl is the probability that a packet is lost, in percent; BurstR is 1 for random
	// loss and more for bursts.
	Ppl, BurstR float64
	// Nc is the circuit noise referred to the 0 dBr point and Nfor the noise floor at the
	// receive side, in dBm0p; Ps and Pr are the room noise of both sides, in dB(A).
	Nc, Nfor, Ps, Pr float64
	// A is the advantage factor, 0-20.
	A float64
}

// Defaults are the default values of G.107 Table 3. Their R is 93.2.
func Defaults() Parameters {
	return Parameters{
		SLR: 8, RLR: 2, STMR: 15, TELR: 65, WEPL: 110, Ds: 3, Dr: 3,
		QDU: 1, Bpl: 4.3, BurstR: 1, Nc: -70, Nfor: -64, Ps: 35, Pr: 35,
	}
}

// R is the transmission rating factor (G.107 equation 7-1).
func (p Parameters) R() float64 {
	no := p.noise()
	ro := 15 - 1.5*(p.SLR+no)
	return ro - p.simultaneous(no, ro) - p.delay(no, ro) - p.equipment() + p.A
}

// noise is No, the power addition of all noise sources, in dBm0p (section 7.2).
func (p Parameters) noise() float64 {
	olr := p.SLR + p.RLR
	nos := p.Ps - p.SLR - p.Ds - 100 + 0.004*square(p.Ps-olr-p.Ds-14)
	lstr := p.STMR + p.Dr
	pre := p.Pr + 10*math.Log10(1+db(10-lstr))
	nor := p.RLR - 121 + pre + 0.008*square(pre-35)
	nfo := p.Nfor + p.RLR
	return 10 * math.Log10(db(p.Nc)+db(nos)+db(nor)+db(nfo))
}

// simultaneous is Is: what impairs together with the speech (section 7.3).
func (p Parameters) simultaneous(no, ro float64) float64 {
	xolr := p.SLR + p.RLR + 0.2*(64+no-p.RLR)
	iolr := 20 * (math.Pow(1+math.Pow(xolr/8, 8), 1./8) - xolr/8)
	q := 37 - 15*math.Log10(p.QDU)
	g := 1.07 + 0.258*q + 0.0602*q*q
	y := (ro-100)/15 + 46/8.4 - g/9
	z := 46./30 - g/40
	iq := 15 * math.Log10(1+math.Pow(10, y)+math.Pow(10, z))
	return iolr + p.sidetone() + iq
}

// sidetone is Ist (section 7.3.2).
func (p Parameters) sidetone() float64 {
	stmro := -10 * math.Log10(db(-p.STMR)+math.Exp(-p.T/4)*db(-p.TELR))
	return 12*math.Pow(1+math.Pow((stmro-13)/6, 8), 1./8) -
		28*math.Pow(1+math.Pow((stmro+1)/19.4, 35), 1./35) -
		13*math.Pow(1+math.Pow((stmro-3)/33, 13), 1./13) + 29
}

// delay is Id: talker echo, listener echo, and delay that is too long even without echo
// (section 7.4).
func (p Parameters) delay(no, ro float64) float64 {
	return p.talkerEcho(no) + p.listenerEcho(ro) + tooLong(p.Ta)
}

// talkerEcho is Idte. Below 1 ms echo is sidetone.
func (p Parameters) talkerEcho(no float64) float64 {
	if p.T < 1 {
		return 0
	}
	terv := p.TELR - 40*math.Log10((1+p.T/10)/(1+p.T/150)) + 6*math.Exp(-0.3*p.T*p.T)
	if p.STMR < 9 {
		terv += p.sidetone() / 2
	}
	re := 80 + 2.5*(terv-14)
	roe := -1.5 * (no - p.RLR)
	idte := ((roe-re)/2 + math.Sqrt(square(roe-re)/4+100) - 1) * (1 - math.Exp(-p.T))
	if p.STMR > 20 {
		return math.Hypot(idte, p.sidetone())
	}
	return idte
}

// listenerEcho is Idle.
func (p Parameters) listenerEcho(ro float64) float64 {
	rle := 10.5 * (p.WEPL + 7) / math.Sqrt(math.Sqrt(p.Tr+1))
	return (ro-rle)/2 + math.Sqrt(square(ro-rle)/4+169)
}

// tooLong is Idd for an absolute one-way delay in ms, with the default delay sensitivity
// (sT 1, mT 100 ms).
func tooLong(ta float64) float64 {
	if ta <= 100 {
		return 0
	}
	x := math.Log2(ta / 100)
	return 25 * (sixth(x) - 3*sixth(x/3) + 2)
}

// sixth is the sixth root of 1 plus x to the sixth.
func sixth(x float64) float64 {
	cube := x * x * x
	return math.Cbrt(math.Sqrt(1 + cube*cube))
}

// equipment is Ie,eff: the codec, with packet loss (equation 7-29).
func (p Parameters) equipment() float64 {
	return effective(p.Ie, p.Bpl, p.Ppl, p.BurstR)
}

func effective(ie, bpl, ppl, burstR float64) float64 {
	return ie + (95-ie)*ppl/(ppl/burstR+bpl)
}

// MOS is the mean opinion score that G.107 Annex B gives for R: 1 to 4.5. Where its
// polynomial dips below 1 (R under 6.5) it is 1.
func MOS(r float64) float64 {
	switch {
	case r <= 0:
		return 1
	case r >= 100:
		return 4.5
	}
	return max(1, 1+0.035*r+7e-6*r*(r-60)*(100-r))
}

func square(x float64) float64 { return x * x }

// db is a power ratio given in dB.
func db(x float64) float64 { return math.Pow(10, x/10) }
